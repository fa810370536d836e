"""From files to conversations: every shape of row, with what is wrong told by file and line."""
