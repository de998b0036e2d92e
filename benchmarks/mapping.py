"""Reference mapping of both packages: six donors are learned, two are mapped onto them.

The label of each mapped cell is the commonest among its 15 nearest cells of the reference, in the
latent of the mapped model; what counts is how many labels are right. `--options defaults` takes the
defaults of SCVI, `--options scarches` those that are advised for mapping: layer norm in place of
batch norm, covariates encoded, two layers. `--model SCANVI` adds labels (a quarter of the reference
cells have one) and tells them by its classifier too.
"""

from __future__ import annotations

import statistics

from peers import OURS, PEER, parsed, parser_for, runs_of

FIGURES = ("reference", "before", "mapped", "told", "reference_seconds", "query_seconds")


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--model", choices=["SCVI", "SCANVI"], default="SCVI")
    parser.add_argument("--options", choices=["defaults", "scarches"], default="scarches")
    parser.add_argument("--epochs", type=int, nargs=2, default=[30, 30], help="reference and query")
    arguments = parsed(parser)
    args = (arguments.model, arguments.options, *arguments.epochs)
    runs = runs_of("mapping_worker.py", arguments, *args)
    print(f"| seed | {arguments.model}, {arguments.options} | scvi-tools | cellvae |")
    print("|---|---|---|---|")
    for key in FIGURES:
        pairs = [
            (theirs[key], ours[key])
            for theirs, ours in zip(runs[PEER], runs[OURS], strict=True)
            if key in theirs
        ]
        if not pairs:
            continue
        for seed, (theirs, ours) in zip(arguments.seeds, pairs, strict=True):
            print(f"| {seed} | {key} | {theirs:.4f} | {ours:.4f} |")
        means = [statistics.mean(side) for side in zip(*pairs, strict=True)]
        print(f"| mean | {key} | {means[0]:.4f} | {means[1]:.4f} |")


if __name__ == "__main__":
    main()
