"""`python -m cellvae` is the command `cellvae`."""

from cellvae.cli.main import run

if __name__ == "__main__":
    run()
