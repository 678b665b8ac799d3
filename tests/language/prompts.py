"""Prompts of many kinds: short, alike, in another script, longer than the window."""

PROMPTS = [
    "What is the capital of France?",
    "Name the capital city of France.",
    "Write a function to reverse a linked list.",
    "hi",
    "数学の問題を解いてください。 " * 5,
    "A train leaves at nine and travels at eighty kilometres an hour. " * 30,  # longer than the window
]
