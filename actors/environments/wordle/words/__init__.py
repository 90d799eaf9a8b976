"""The word list that is shipped, its notice, and the script that made it."""
