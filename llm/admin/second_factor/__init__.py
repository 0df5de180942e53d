"""The second factor: what allauth's pages may do here, who needs one, and how a lost one is reset."""
