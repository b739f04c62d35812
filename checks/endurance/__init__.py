"""What a server stands: load for an hour, ten times too much of it, and clients that mean no good.

Each module is a program that writes a report; the tests use the same attackers and questions.
"""

from pathlib import Path

REPORTS = Path("docs") / "robustness"
"""Where reports go unless said otherwise."""
