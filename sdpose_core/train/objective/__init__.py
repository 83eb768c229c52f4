"""What is minimised: losses and the module that is trained."""
