"""Cameras that the service itself reads: which, how each is supervised, and who watches."""
