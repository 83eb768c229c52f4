"""Objective of training: losses and the module that is trained."""
