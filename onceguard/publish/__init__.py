"""The publisher's side: a claim before each send."""
