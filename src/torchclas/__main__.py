"""`python -m torchclas` is `torchclas`."""

from torchclas.cli import main

main()
