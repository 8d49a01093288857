"""Nodes on machines of their own: their files, the program, its checks, and how clients reach them."""
