"""Other protocols, a module for each: parse, embed, and respond as its clients expect."""
