"""Registration of an AnnData: keys, fields, checks, and what was found."""
