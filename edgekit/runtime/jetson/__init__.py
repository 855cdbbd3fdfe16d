"""What a Jetson says of itself: one small file for each of its texts, each a parser from text to a frozen dataclass.

A parser returns None for a text that it cannot read, and leaves out what it does not know; it never guesses.
"""
