"""What a pickle may make where nothing in it is to run: plain values and stand-ins."""
