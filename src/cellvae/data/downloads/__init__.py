"""Files of published data sets: addresses, checksums, download and cache."""
