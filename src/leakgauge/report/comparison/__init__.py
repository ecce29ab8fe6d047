"""Two runs side by side: what got worse, what got better, what is only in one."""
