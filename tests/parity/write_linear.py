"""Numbers of scvi-tools' LinearSCVI, written to `linear.npz` for the tests of parity.

Run by hand, in an environment with scvi-tools==1.4.2:

    python tests/parity/write_linear.py

Stored are weights, cells, posterior means, what the decoder says of a given latent, and loadings.
"""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import scvi
import torch

N_CELLS, N_GENES, N_LATENT = 24, 15, 4


def main() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 3.0, (N_CELLS, N_GENES))).astype(np.float32)
    adata = anndata.AnnData(counts)
    adata.obs["batch"] = np.array(["a", "b", "c"])[np.arange(N_CELLS) % 3]
    stored = {"counts": counts, "batch": np.arange(N_CELLS) % 3}
    z = rng.normal(size=(N_CELLS, N_LATENT)).astype(np.float32)
    stored["z"] = z
    for likelihood in ("nb", "zinb"):
        scvi.model.LinearSCVI.setup_anndata(adata, batch_key="batch")
        model = scvi.model.LinearSCVI(
            adata, n_hidden=8, n_latent=N_LATENT, gene_likelihood=likelihood
        )
        module = model.module.eval()
        state = module.state_dict()
        for name, tensor in state.items():
            if not name.endswith("num_batches_tracked"):
                noise = torch.from_numpy(rng.normal(size=tuple(tensor.shape)).astype(np.float32))
                tensor.copy_(noise.abs() + 0.1 if "var" in name and "run" in name else 0.3 * noise)
        state["library_log_vars"].abs_().add_(0.1)
        module.load_state_dict(state)
        model.is_trained = True
        with torch.no_grad():
            library = torch.full((N_CELLS, 1), 3.0)
            codes = torch.from_numpy(stored["batch"])[:, None]
            scale, _, rate, dropout = module.decoder("gene", torch.from_numpy(z), library, codes)
        stored |= {f"{likelihood} weight {k}": v.numpy() for k, v in state.items()}
        stored |= {
            f"{likelihood} latent": model.get_latent_representation(),
            f"{likelihood} scale": scale.numpy(),
            f"{likelihood} rate": rate.numpy(),
            f"{likelihood} dropout": dropout.numpy(),
            f"{likelihood} loadings": model.get_loadings().to_numpy(),
        }
    np.savez_compressed(Path(__file__).with_name("linear.npz"), **stored)


if __name__ == "__main__":
    main()
