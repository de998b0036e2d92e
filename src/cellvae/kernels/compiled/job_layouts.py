"""Layouts of the jobs that the torch side fills in and the compiled kernels read.

A job is a contiguous array of 64-bit integers: sizes, flags and the addresses of the arrays that a
kernel reads and writes. Each layout is declared once, as a named tuple. The torch side makes one
by keyword, so that a missing or misspelt field is an error; the compiled side reads the array at
the positions of the fields, for which numba compiles constants::

    run_parallel(kernel, CountLogProbJob(next_cell=0, n_cells=128, ...), n_threads)

    fields = carray(job, len(COUNT_LOG_PROB), types.int64)
    n_cells = fields[COUNT_LOG_PROB.n_cells]

Every field is an address unless it says otherwise. The first field of a layout counts the work that
has been handed out to threads and begins at zero.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

COLUMNS_OF_A_CACHE_LINE = 16
"""Numbers of float32 that a processor reads and writes together."""
Layout = TypeVar("Layout", bound=tuple[int, ...])


def field_positions(layout: type[Layout]) -> Layout:
    """Position of every field in the array of a job, under the name of the field."""
    names: tuple[str, ...] = layout._fields  # type: ignore[attr-defined]
    return layout(*range(len(names)))


class CountLogProbJob(NamedTuple):
    """Job of the kernel of `count_log_prob`; arrays are of float32 unless another type is named."""

    next_cell: int
    """Number of cells handed out."""
    n_cells: int
    n_genes: int
    n_theta_rows: int
    """Rows of theta: 0 for Poisson, 1 for an inverse dispersion per gene, else `n_cells`."""
    n_dropout_rows: int
    """Rows of dropout: 0 without zero inflation, else `n_cells`."""
    n_nonzero: int
    """Counts of the CSR batch; -1 if the counts are dense."""
    need_grad: int
    """1 if derivatives are computed, else 0."""
    cells_per_range: int
    counts: int
    """[cells, genes] if dense."""
    values: int
    """[nonzero] if sparse."""
    indices: int
    """[nonzero] if sparse, int32."""
    indptr: int
    """[cells + 1] if sparse, int64."""
    logits: int
    """[cells, genes]."""
    logits_bias: int
    """[genes]."""
    log_library: int
    """[cells]."""
    theta: int
    """[theta rows, genes]."""
    dropout: int
    """[dropout rows, genes]."""
    dropout_bias: int
    """[genes]."""
    cell_weight: int
    """[cells]."""
    log_prob: int
    """[cells], written."""
    grad_log_library: int
    """[cells], written."""
    grad_logits: int
    """[cells, genes], written."""
    grad_theta: int
    """[cells, genes], written if theta differs between cells."""
    grad_dropout: int
    """[cells, genes], written."""
    grad_gene: int
    """[ranges, 3, genes], written: sums over the cells of each range."""


class BernoulliLogProbJob(NamedTuple):
    """Job of the kernel of `bernoulli_log_prob`; arrays are of float32 unless a type is named."""

    next_cell: int
    """Number of cells handed out."""
    n_cells: int
    n_regions: int
    n_nonzero: int
    """Counts of the CSR batch; -1 if the counts are dense."""
    need_grad: int
    """1 if derivatives are computed, else 0."""
    cells_per_range: int
    counts: int
    """[cells, regions] if dense."""
    values: int
    """[nonzero] if sparse."""
    indices: int
    """[nonzero] if sparse, int32."""
    indptr: int
    """[cells + 1] if sparse, int64."""
    logits: int
    """[cells, regions]."""
    logits_bias: int
    """[regions]."""
    log_depth: int
    """[cells]."""
    depth: int
    """[cells]: exponential of `log_depth`."""
    depth_complement: int
    """[cells]: 1 - depth."""
    log_factor: int
    """[regions]."""
    factor: int
    """[regions]: exponential of `log_factor`."""
    factor_complement: int
    """[regions]: 1 - factor."""
    cell_weight: int
    """[cells]."""
    log_prob: int
    """[cells], written."""
    grad_log_depth: int
    """[cells], written."""
    grad_logits: int
    """[cells, regions], written."""
    grad_region: int
    """[ranges, 2, regions], written: sums over the cells of each range."""


class MixtureLogProbJob(NamedTuple):
    """Job of the kernel of `mixture_log_prob`; all arrays are float32, [cells, features]."""

    next_cell: int
    """Number of cells handed out."""
    n_cells: int
    n_features: int
    counts: int
    mu1: int
    mu2: int
    theta1: int
    theta2: int
    logits: int
    log_prob: int
    """Written, as all that follow."""
    grad_mu1: int
    grad_mu2: int
    grad_theta1: int
    grad_theta2: int
    grad_logits: int


class ProteinElboJob(NamedTuple):
    """Job of both kernels of `protein_elbo`; arrays are of float32 unless another type is named."""

    next_cell: int
    """Number of cells handed out."""
    n_cells: int
    n_proteins: int
    n_batches: int
    n_panels: int
    n_theta_rows: int
    """Rows of theta: 1 for an inverse dispersion per protein, else `n_cells`."""
    counts: int
    """[cells, proteins]."""
    noise: int
    """[cells, proteins]."""
    batch: int
    """[cells], int64."""
    panel: int
    """[cells], int64."""
    measured: int
    """[panels, proteins], bytes of 0 or 1."""
    penalty: int
    """[1]."""
    loc: int
    """[cells, proteins], as the three that follow."""
    scale: int
    ratio: int
    logits: int
    theta: int
    """[theta rows, proteins]."""
    log_efficiency: int
    """[proteins, batches]."""
    prior_loc: int
    """[proteins, panels]."""
    prior_log_scale: int
    """[proteins, panels]."""
    terms: int
    """[2, cells]: both terms, written forward; derivatives by them, read backward."""
    slopes: int
    """[4, cells, proteins]: derivatives of the log-probability by the log mean of the background,
    ratio, logits and theta; written forward, read backward."""
    grad_loc: int
    """Written backward in the shape of `loc`, as are all that follow in theirs."""
    grad_scale: int
    grad_ratio: int
    grad_logits: int
    grad_theta: int
    grad_log_efficiency: int
    grad_prior_loc: int
    grad_prior_log_scale: int


class SparseLinearJob(NamedTuple):
    """Job of both kernels of `sparse_linear`; arrays are of float32 unless a type is named."""

    next_item: int
    """Number of cells (forward) or ranges of genes (backward) handed out."""
    n_cells: int
    n_genes: int
    n_out: int
    n_nonzero: int
    n_threads: int
    is_transposed: int
    """1 if the features are stored by gene already, else 0; not read forward, as what follows."""
    gene_indptr: int
    """[genes + 1], int64: start of each gene in the two that follow; written if not transposed."""
    cells_of_genes: int
    """[nonzero], int32: cell of each value, gene by gene."""
    values_of_genes: int
    """[nonzero]: values, gene by gene."""
    values: int
    """[nonzero]."""
    indices: int
    """[nonzero], int32."""
    indptr: int
    """[cells + 1], int64."""
    factor: int
    """Weights by gene, [genes, out], forward; derivatives by the output, [cells, out], backward."""
    bias: int
    """[out], forward; not read backward."""
    result: int
    """[cells, out] forward, derivatives by the weights, [genes, out], backward; written."""


class SamplePosteriorJob(NamedTuple):
    """Job of both kernels of `sample_posterior`; arrays are of float32 unless a type is named."""

    next_item: int
    """Number of cells (forward) or of cells and rows of the weights (backward) handed out."""
    n_cells: int
    n_hidden: int
    n_latent: int
    constants: int
    """[2], float64: what is added to the variance, and the largest log-variance."""
    hidden: int
    """[cells, hidden]."""
    mean_weight: int
    """[latent, hidden]."""
    mean_bias: int
    """[latent]."""
    variance_weight: int
    """[latent, hidden]."""
    variance_bias: int
    """[latent]."""
    noise: int
    """[cells, latent]."""
    loc: int
    """[cells, latent], written forward, as the three that follow."""
    scale: int
    """[cells, latent]."""
    sample: int
    """[cells, latent]."""
    kl: int
    """[cells]."""
    slopes: int
    """[2, cells, latent]: derivatives of the standard deviation and of the divergence by the
    log-variance; written forward, read backward."""
    grad_loc: int
    """Derivatives by `loc` in its shape, read backward; 0 if there are none, as the next three."""
    grad_scale: int
    grad_sample: int
    grad_kl: int
    grad_hidden: int
    """Written backward in the shape of `hidden`, as are all that follow in theirs."""
    grad_mean_weight: int
    grad_mean_bias: int
    grad_variance_weight: int
    grad_variance_bias: int


class Log1PTotalsJob(NamedTuple):
    """Job of the kernel of `log1p_totals`; arrays are of float32 unless a type is named."""

    next_cell: int
    """Number of cells handed out."""
    n_cells: int
    n_nonzero: int
    values: int
    """[nonzero]."""
    indptr: int
    """[cells + 1], int64."""
    logarithms: int
    """[nonzero], written."""
    totals: int
    """[cells], written."""


class LogFoldChangeSummaryJob(NamedTuple):
    """Job of the kernel of `log_fold_change_summary`."""

    next_gene: int
    """Number of genes handed out."""
    n_draws: int
    n_genes: int
    first: int
    """[draws, genes], float32."""
    second: int
    """[draws, genes], float32."""
    pseudocount_and_delta: int
    """[2], float32."""
    statistics: int
    """[statistics, genes], float64, written: a row for each of :class:`LogFoldChangeRows`."""


class LogFoldChangeRows(NamedTuple):
    """Rows of the results of `log_fold_change_summary`."""

    up: int
    down: int
    mean: int
    median: int
    std: int
    min: int
    max: int


class AdamStepJob(NamedTuple):
    """Job of the kernel of `adam_step`."""

    next_chunk: int
    """Number of chunks handed out, counted through all tensors."""
    n_done: int
    """Number of chunks that were updated, counted by the kernel."""
    n_tensors: int
    is_decoupled: int
    """1 if the weight decay is no part of the gradient (AdamW), else 0."""
    constants: int
    """Float64, an entry for each of :class:`AdamConstants`."""
    tensors: int
    """Int64, [tensors, fields]: a row for each tensor, an :class:`AdamTensor`."""


class AdamConstants(NamedTuple):
    """Constants of `adam_step`."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float


class AdamTensor(NamedTuple):
    """Number of elements of a tensor of weights, and addresses of it and of its state."""

    n_elements: int
    parameter: int
    gradient: int
    exp_avg: int
    exp_avg_sq: int
    step: int
    """[1], increased by one."""


class AllFiniteJob(NamedTuple):
    """Job of the kernel of `all_finite`."""

    next_chunk: int
    """Number of chunks handed out, counted through all tensors."""
    n_not_finite: int
    """Number of chunks with NaN or infinity, counted by the kernel."""
    n_tensors: int
    tensors: int
    """[tensors, 2], int64: address and number of elements of each."""


class BatchNormReluDropoutJob(NamedTuple):
    """Job of both kernels of `batch_norm_relu_dropout`; arrays are of float32 unless it is said."""

    next_column: int
    """Number of columns handed out."""
    n_cells: int
    n_columns: int
    n_inputs: int
    """Inputs of the linear layer whose output is normalised; 0 if the features are given."""
    columns_per_range: int
    seed: int
    """Key of the generator of the dropout masks."""
    threshold: int
    """Values below this one are dropped, of 32 random bits; 0 for no dropout."""
    constants: int
    """[3], float64: eps, momentum, and the scale of what is not dropped."""
    inputs: int
    """[cells, inputs]."""
    linear_weight: int
    """[columns, inputs]."""
    linear_bias: int
    """[columns]."""
    features: int
    """[cells, columns]; written by the forward kernel if there are inputs."""
    weight: int
    """[columns]."""
    bias: int
    """[columns]."""
    running_mean: int
    """[columns], updated by the forward kernel."""
    running_var: int
    """[columns], updated by the forward kernel."""
    mean: int
    """[columns], written by the forward kernel."""
    inverse_std: int
    """[columns], written by the forward kernel."""
    output: int
    """[cells, columns], written by the forward kernel."""
    grad_output: int
    """[cells, columns], read by the backward kernel."""
    grad_features: int
    """[cells, columns], written by the backward kernel."""
    grad_weight: int
    """[columns], written by the backward kernel."""
    grad_bias: int
    """[columns], written by the backward kernel."""
    grad_inputs: int
    """[cache lines of columns, cells, inputs], written by the backward kernel: sums over the
    columns of each cache line; 0 if they are not needed."""
    grad_linear_weight: int
    """[columns, inputs], written by the backward kernel if there are inputs."""
    grad_linear_bias: int
    """[columns], written by the backward kernel if there are inputs."""


class LayerNormActivationDropoutJob(NamedTuple):
    """Job of both kernels of `layer_norm_activation_dropout`; arrays of float32 but where said."""

    next_cell: int
    """Number of cells handed out."""
    n_cells: int
    n_columns: int
    cells_per_range: int
    """A multiple of four."""
    seed: int
    """Key of the generator of the dropout masks."""
    threshold: int
    """Values below this one are dropped, of 32 random bits; 0 for no dropout."""
    constants: int
    """[3], float64: eps, slope below zero, and the scale of what is not dropped."""
    features: int
    """[cells, columns]."""
    mean: int
    """[cells], written by the forward kernel."""
    inverse_std: int
    """[cells], written by the forward kernel."""
    output: int
    """[cells, columns], written by the forward kernel."""
    grad_output: int
    """[cells, columns], read by the backward kernel."""
    grad_features: int
    """[cells, columns], written by the backward kernel."""


COUNT_LOG_PROB = field_positions(CountLogProbJob)
BERNOULLI_LOG_PROB = field_positions(BernoulliLogProbJob)
MIXTURE_LOG_PROB = field_positions(MixtureLogProbJob)
PROTEIN_ELBO = field_positions(ProteinElboJob)
SPARSE_LINEAR = field_positions(SparseLinearJob)
SAMPLE_POSTERIOR = field_positions(SamplePosteriorJob)
LOG1P_TOTALS = field_positions(Log1PTotalsJob)
LOG_FOLD_CHANGE_SUMMARY = field_positions(LogFoldChangeSummaryJob)
LOG_FOLD_CHANGE_ROWS = field_positions(LogFoldChangeRows)
ADAM_STEP = field_positions(AdamStepJob)
ADAM_CONSTANTS = AdamConstants(*range(5))
ADAM_TENSOR = field_positions(AdamTensor)
ALL_FINITE = field_positions(AllFiniteJob)
BATCH_NORM_RELU_DROPOUT = field_positions(BatchNormReluDropoutJob)
LAYER_NORM_ACTIVATION_DROPOUT = field_positions(LayerNormActivationDropoutJob)
