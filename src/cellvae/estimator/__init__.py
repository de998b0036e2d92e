"""The base class of models and what it is made of."""
