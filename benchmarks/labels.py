"""SCANVI of both packages on the same cells: how many hidden labels are told right?

Ten in a hundred labels of six donors are seen, none of two others. SCVI is trained first, and
SCANVI starts from it with a hundred cells of each label an epoch.
"""

from __future__ import annotations

import statistics

from peers import OURS, PEER, parsed, parser_for, runs_of


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--epochs", type=int, nargs=2, default=[30, 20], help="SCVI and SCANVI")
    arguments = parsed(parser)
    runs = runs_of("label_worker.py", arguments, *arguments.epochs)
    print("| seed | figure | scvi-tools | cellvae |")
    print("|---|---|---|---|")
    for theirs, ours in zip(runs[PEER], runs[OURS], strict=True):
        for key, title in (("hidden", "hidden labels"), ("new donors", "labels of new donors")):
            print(
                f"| {theirs['seed']} | {title} told right | {theirs[key]:.4f} | {ours[key]:.4f} |"
            )
    for key in ("scvi_seconds", "scanvi_seconds"):
        medians = [statistics.median(run[key] for run in runs[side]) for side in (PEER, OURS)]
        print(f"| all | median {key.replace('_', ', ')} | {medians[0]:.1f} | {medians[1]:.1f} |")


if __name__ == "__main__":
    main()
