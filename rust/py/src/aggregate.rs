//! Bindings of `pdeinfl_core::aggregate`.

use numpy::{
    PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3,
    PyUntypedArrayMethods,
};
use pdeinfl_core::aggregate::{self, Binning, Block, Labels, Table};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::to_py;
use crate::monitor;
use crate::slices::slice;

/// Standardised copy of a stack `(m, n_response, n_perturbation)` and the number of rows (and columns) masked as NaN.
/// `losses` is `(m, n_response)`.
#[pyfunction]
#[pyo3(signature = (values, kind, losses=None, num_threads=None))]
fn standardize<'py>(
    py: Python<'py>,
    values: PyReadonlyArray3<'py, f64>,
    kind: &str,
    losses: Option<PyReadonlyArray2<'py, f64>>,
    num_threads: Option<usize>,
) -> PyResult<(Bound<'py, PyArray3<f64>>, u64)> {
    let kind = kind.parse().map_err(to_py)?;
    let shape = values.as_array().dim();
    let mut out: Vec<f64> = values.as_array().iter().copied().collect();
    let losses = losses.as_ref().map(|l| slice("losses", l)).transpose()?;
    let (masked, out) = monitor::run(py, num_threads, None, |progress| {
        let masked = aggregate::standardize(&mut out, (shape.1, shape.2), kind, losses, progress)?;
        Ok((masked, out))
    })?;
    Ok((PyArray1::from_vec(py, out).reshape([shape.0, shape.1, shape.2])?, masked))
}

/// The four label arrays of a list of blocks: rows and columns of all blocks, concatenated.
#[derive(FromPyObject)]
struct LabelArrays<'py>(
    PyReadonlyArray1<'py, i64>,
    PyReadonlyArray1<'py, i64>,
    PyReadonlyArray1<'py, i64>,
    PyReadonlyArray1<'py, i64>,
);

/// Borrowed blocks: matrices, labels and the cluster of each.
struct Blocks<'py> {
    values: Vec<PyReadonlyArray2<'py, f64>>,
    labels: LabelArrays<'py>,
    clusters: PyReadonlyArray1<'py, i64>,
    distances: Option<Vec<PyReadonlyArray2<'py, f64>>>,
}

impl Blocks<'_> {
    fn views(&self) -> PyResult<Vec<Block<'_>>> {
        let LabelArrays(row_groups, row_times, column_groups, column_times) = &self.labels;
        let label = |array| slice("labels", array);
        let (mut rows, mut columns) =
            ((label(row_groups)?, label(row_times)?), (label(column_groups)?, label(column_times)?));
        let clusters = slice("clusters", &self.clusters)?;
        if clusters.len() != self.values.len() || self.distances.as_ref().is_some_and(|d| d.len() != clusters.len()) {
            return Err(PyValueError::new_err("one cluster and one distance matrix are needed for each block"));
        }
        let mut blocks = Vec::with_capacity(self.values.len());
        for (index, values) in self.values.iter().enumerate() {
            let &[n_rows, n_columns] = values.shape() else {
                return Err(PyValueError::new_err("blocks must be matrices"));
            };
            let cluster = u32::try_from(clusters[index]).map_err(|_| PyValueError::new_err("negative cluster"))?;
            let distance = match &self.distances {
                Some(distances) => Some(slice("distances", &distances[index])?),
                None => None,
            };
            blocks.push(Block {
                values: slice("values", values)?,
                rows: take(&mut rows, n_rows)?,
                columns: take(&mut columns, n_columns)?,
                distance,
                cluster,
            });
        }
        Ok(blocks)
    }
}

fn take<'a>(labels: &mut (&'a [i64], &'a [i64]), n: usize) -> PyResult<Labels<'a>> {
    let short = || PyValueError::new_err("label arrays are shorter than the blocks");
    let (group, groups) = labels.0.split_at_checked(n).ok_or_else(short)?;
    let (time, times) = labels.1.split_at_checked(n).ok_or_else(short)?;
    *labels = (groups, times);
    Ok(Labels { group, time })
}

fn binning(kind: &str, size: usize) -> PyResult<Binning<'static>> {
    Ok(match kind {
        "two_time" => Binning::TwoTime { n_times: size },
        "lag" => Binning::Lag { max_lag: size },
        "class" => Binning::Class { n_classes: size, same_time: true },
        "class_any_time" => Binning::Class { n_classes: size, same_time: false },
        "column" => Binning::Column { n_columns: size },
        other => return Err(PyValueError::new_err(format!("unknown binning {other:?}"))),
    })
}

type Pooled<'py> = (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<u64>>, Option<Bound<'py, PyArray2<f64>>>);

/// Quantiles `(n_quantiles, n_bins)` of the pooled entries of each bin, their numbers `(n_bins,)`, and, given
/// `multiplicities` `(n_resamples, n_clusters)`, the median of each bin under each resample `(n_resamples, n_bins)`.
#[pyfunction]
#[pyo3(signature = (values, labels, clusters, kind, size, quantiles, multiplicities=None, num_threads=None, progress=None))]
#[allow(clippy::too_many_arguments)] // the face that Python sees
fn pooled_quantiles<'py>(
    py: Python<'py>,
    values: Vec<PyReadonlyArray2<'py, f64>>,
    labels: LabelArrays<'py>,
    clusters: PyReadonlyArray1<'py, i64>,
    kind: &str,
    size: usize,
    quantiles: Vec<f64>,
    multiplicities: Option<PyReadonlyArray2<'py, i32>>,
    num_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Pooled<'py>> {
    if quantiles.iter().any(|q| !(0.0..=1.0).contains(q)) {
        return Err(PyValueError::new_err(format!("`quantiles` must lie in [0, 1]; got {quantiles:?}")));
    }
    let binning = binning(kind, size)?;
    let blocks = Blocks { values, labels, clusters, distances: None };
    let views = blocks.views()?;
    let resamples = match &multiplicities {
        Some(m) => Some((slice("multiplicities", m)?, m.shape()[1])),
        None => None,
    };
    let (of_all, counts, medians) = monitor::run(py, num_threads, progress, |watch| {
        let table = Table::pooled(&views, &binning, watch)?;
        let medians = resamples.map(|(m, n)| aggregate::bootstrap_medians(&table, m, n, watch)).transpose()?;
        Ok((table.quantiles(&quantiles), table.counts(), medians))
    })?;
    let n_bins = binning.n_bins();
    let of_all = PyArray1::from_vec(py, of_all).reshape([quantiles.len(), n_bins])?;
    let n_resamples = multiplicities.as_ref().map_or(0, |m| m.shape()[0]);
    let medians = medians.map(|m| PyArray1::from_vec(py, m).reshape([n_resamples, n_bins])).transpose()?;
    Ok((of_all, PyArray1::from_vec(py, counts), medians))
}

type BinSums<'py> = (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<u64>>);

/// Sum and number of the entries of each bin, block by block, both `(n_blocks, n_bins)`. With `kind="distance"` the
/// bins are given by `edges` and `distances` holds a matrix for each block.
#[pyfunction]
#[pyo3(signature = (values, labels, clusters, kind, size, distances=None, edges=None, num_threads=None, progress=None))]
#[allow(clippy::too_many_arguments)] // the face that Python sees
fn bin_sums<'py>(
    py: Python<'py>,
    values: Vec<PyReadonlyArray2<'py, f64>>,
    labels: LabelArrays<'py>,
    clusters: PyReadonlyArray1<'py, i64>,
    kind: &str,
    size: usize,
    distances: Option<Vec<PyReadonlyArray2<'py, f64>>>,
    edges: Option<PyReadonlyArray1<'py, f64>>,
    num_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<BinSums<'py>> {
    let n_blocks = values.len();
    let blocks = Blocks { values, labels, clusters, distances };
    let views = blocks.views()?;
    let binning = match (&edges, kind) {
        (Some(edges), "distance") => Binning::Distance { edges: slice("edges", edges)? },
        (None, kind) => binning(kind, size)?,
        _ => return Err(PyValueError::new_err("`edges` belongs to kind=\"distance\"")),
    };
    let sums = monitor::run(py, num_threads, progress, |watch| aggregate::bin_sums(&views, &binning, watch))?;
    let shape = [n_blocks, binning.n_bins()];
    Ok((PyArray1::from_vec(py, sums.sums).reshape(shape)?, PyArray1::from_vec(py, sums.counts).reshape(shape)?))
}

/// Bootstrap multiplicities `(n_resamples, n_clusters)`: how often each (seed, mini-batch) is drawn.
#[pyfunction]
fn bootstrap_multiplicities<'py>(
    py: Python<'py>,
    group_sizes: Vec<usize>,
    n_resamples: usize,
    seed: u64,
    hierarchical: bool,
) -> PyResult<Bound<'py, PyArray2<i32>>> {
    let n_clusters: usize = group_sizes.iter().sum();
    let counts =
        py.detach(|| aggregate::multiplicities(&group_sizes, n_resamples, seed, hierarchical)).map_err(to_py)?;
    PyArray1::from_vec(py, counts).reshape([n_resamples, n_clusters])
}

/// `‖𝓛_t H‖_F / ‖H‖_F` of one matrix; labels are (row trajectory, row time, column trajectory, column time).
#[pyfunction]
#[pyo3(signature = (values, labels, accuracy_order=2))]
fn translation_defect<'py>(
    py: Python<'py>,
    values: PyReadonlyArray2<'py, f64>,
    labels: LabelArrays<'py>,
    accuracy_order: usize,
) -> PyResult<f64> {
    let LabelArrays(row_groups, row_times, column_groups, column_times) = &labels;
    let (values, label) = (slice("values", &values)?, |array| slice("labels", array));
    let rows = Labels { group: label(row_groups)?, time: label(row_times)? };
    let columns = Labels { group: label(column_groups)?, time: label(column_times)? };
    py.detach(|| aggregate::translation_defect(values, rows, columns, accuracy_order)).map_err(to_py)
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(standardize, m)?)?;
    m.add_function(wrap_pyfunction!(pooled_quantiles, m)?)?;
    m.add_function(wrap_pyfunction!(bin_sums, m)?)?;
    m.add_function(wrap_pyfunction!(bootstrap_multiplicities, m)?)?;
    m.add_function(wrap_pyfunction!(translation_defect, m)?)
}
