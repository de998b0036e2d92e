"""Tables that fields are read from: an AnnData, a modality, features of one type."""
