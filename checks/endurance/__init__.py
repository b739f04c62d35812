"""What a server withstands: an hour of load, ten times too much load, and hostile clients.

Each module is a program that writes a report; the tests use the same attackers and requests.
"""

from pathlib import Path

REPORTS = Path("docs") / "robustness"
"""Where reports go unless said otherwise."""
