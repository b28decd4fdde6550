//! How a contraction is cut into work units. Everything here depends on the shapes alone, never on the thread count:
//! that, and adding partial tiles in slab order, is what makes the bits reproducible.

use std::ops::Range;

/// Most rows in a group: an output tile is at most this square, 8 MiB in `f64`.
const MAX_GROUP: usize = 1020;

/// Fewest rows in a group when there are too few units to go round.
const MIN_GROUP: usize = 96;

/// Groups are whole register tiles of every kernel (2, 3 and 6 rows, 4 columns).
const GROUP_STEP: usize = 12;

/// Work units that there should be at least, to go round.
const MIN_UNITS: usize = 32;

/// Work units that are enough for any machine: beyond them slabs are made longer.
const MAX_UNITS: usize = 192;

/// Panels of a slab beyond which adding its partial tile costs next to nothing.
const LONG_SLAB: usize = 16;

/// What packing a row costs, in products of its panel with another row.
const PACKING: f64 = 15.0;

/// What adding the partial tile of a slab costs, in panels.
const ADDING: f64 = 0.8;

/// One output tile: these rows of `a` against these of `b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) a: Range<usize>,
    pub(super) b: Range<usize>,
    /// Both are the same rows of the same matrix, so that only the lower triangle is wanted.
    pub(super) diagonal: bool,
}

impl Block {
    /// Rows that a panel of it has: those of `a`, and those of `b` unless they are the same.
    pub(super) fn n_packed(&self) -> usize {
        self.a.len() + if self.diagonal { 0 } else { self.b.len() }
    }
}

/// All output tiles, and the slabs that the contraction of each is cut into.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) blocks: Vec<Block>,
    pub(super) n_slabs: usize,
    slab: usize,
    n_columns: usize,
}

impl Plan {
    /// Plan `n_a × n_b` products of length `n_columns` from panels of `width` columns.
    pub(super) fn new(n_a: usize, n_b: usize, symmetric: bool, n_columns: usize, width: usize) -> Self {
        let n_panels = n_columns.div_ceil(width);
        let sizes =
            std::iter::successors(Some(MAX_GROUP), |most| (*most > MIN_GROUP).then(|| (most / 2).max(MIN_GROUP)));
        let mut cheapest: Option<(f64, Vec<Block>, usize)> = None;
        for most in sizes {
            let blocks = blocks(n_a, n_b, symmetric, most);
            let n_units = blocks.len() * n_panels;
            let panels = (n_units / MAX_UNITS).max(LONG_SLAB.min(n_units / MIN_UNITS)).clamp(1, n_panels.max(1));
            // Where there are too few units to go round, the smallest groups are taken.
            let cost = if n_units < MIN_UNITS { f64::INFINITY } else { overhead(&blocks, panels) };
            if cheapest.as_ref().is_none_or(|(least, ..)| least.is_infinite() || cost < *least) {
                cheapest = Some((cost, blocks, panels));
            }
        }
        let (_, blocks, panels) = cheapest.unwrap_or_default();
        Self { blocks, n_slabs: n_panels.div_ceil(panels), slab: panels * width, n_columns }
    }

    pub(super) fn n_units(&self) -> usize {
        self.blocks.len() * self.n_slabs
    }

    /// Output tile and slab of a unit; the slabs of a tile are consecutive.
    pub(super) fn unit(&self, index: usize) -> (&Block, Range<usize>) {
        let start = index % self.n_slabs * self.slab;
        (&self.blocks[index / self.n_slabs], start..(start + self.slab).min(self.n_columns))
    }
}

/// What is done beside multiplying, relative to it: packing both sides of a tile, adding up its slabs.
fn overhead(blocks: &[Block], panels: usize) -> f64 {
    let rows = |block: &Block| 1.0 / block.a.len() as f64 + 1.0 / block.b.len() as f64;
    PACKING * blocks.first().map_or(0.0, rows) + ADDING / panels as f64
}

fn blocks(n_a: usize, n_b: usize, symmetric: bool, most: usize) -> Vec<Block> {
    let (a, b) = (groups(n_a, most), groups(n_b, most));
    let mut blocks = Vec::new();
    for (i, rows) in a.iter().enumerate() {
        for (j, columns) in b.iter().enumerate().take(if symmetric { i + 1 } else { b.len() }) {
            blocks.push(Block { a: rows.clone(), b: columns.clone(), diagonal: symmetric && i == j });
        }
    }
    blocks
}

/// Cut `0..n` into nearly equal ranges of at most `most`.
fn groups(n: usize, most: usize) -> Vec<Range<usize>> {
    let size = n.div_ceil(n.div_ceil(most).max(1)).next_multiple_of(GROUP_STEP);
    (0..n).step_by(size.max(1)).map(|start| start..(start + size).min(n)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slabs_are_long_and_groups_large_where_there_is_enough_to_go_round() {
        let long = Plan::new(816, 816, true, 1_000_000, 1024);
        assert_eq!(long.blocks.len(), 1);
        assert!(long.slab >= LONG_SLAB * 1024);
        let short = Plan::new(816, 816, true, 8 * 1024, 1024);
        assert!(short.blocks.len() > 1 && short.n_units() >= MIN_UNITS);
    }

    proptest! {
        #[test]
        fn units_cover_every_product_once(n_a in 0usize..2500, n_b in 0usize..2500, k in 1usize..9000, w in 1usize..1100) {
            let plan = Plan::new(n_a, n_b, false, k, w);
            let area: usize = (0..plan.n_units())
                .map(|u| { let (t, slab) = plan.unit(u); t.a.len() * t.b.len() * slab.len() })
                .sum();
            prop_assert_eq!(area, n_a * n_b * k);
            prop_assert!(plan.blocks.iter().all(|t| t.a.len() <= MAX_GROUP && t.b.len() <= MAX_GROUP));
        }

        #[test]
        fn symmetric_tiles_cover_the_lower_triangle(n in 0usize..3000) {
            let plan = Plan::new(n, n, true, 5000, 512);
            let area: usize = plan.blocks.iter()
                .map(|t| if t.diagonal { t.a.len() * (t.a.len() + 1) / 2 } else { t.a.len() * t.b.len() })
                .sum();
            prop_assert_eq!(area, n * (n + 1) / 2);
        }
    }
}
