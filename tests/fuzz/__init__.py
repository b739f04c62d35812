"""Inputs made by chance, by the million where there is time."""
