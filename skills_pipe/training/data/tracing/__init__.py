"""Chat templates rendered once per kind of conversation, and then only filled in: the same text, without Jinja."""
