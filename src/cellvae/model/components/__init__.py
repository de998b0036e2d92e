"""Parts of models that more than one of them uses, or one alone."""
