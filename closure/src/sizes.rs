//! How large everything below a path is.

use ncc_store::StorePath;

use crate::{
    Graph, GraphError,
    edges::{Node, nodes},
};

/// How many paths are asked about in one walk: one bit of a mask each.
const BATCH: usize = u64::BITS as usize;

/// Sizes are those of NARs, in bytes, and exact: what two paths share counts once.
impl Graph {
    /// The size of all paths together.
    pub fn total_size(&self) -> u64 {
        self.iter().fold(0, |sum, info| sum.saturating_add(info.nar_size))
    }

    /// The size of the closure of one path.
    ///
    /// # Errors
    /// [`GraphError::NotInGraph`].
    pub fn closure_size(&self, path: &StorePath) -> Result<u64, GraphError> {
        let sizes = self.sizes_below(&[self.find(path)?]);
        Ok(sizes.first().copied().unwrap_or_default())
    }

    /// The size of the closure of each of `paths`, in their order. One walk through the graph serves 64 paths.
    ///
    /// # Errors
    /// [`GraphError::NotInGraph`].
    pub fn closure_sizes_of(&self, paths: &[StorePath]) -> Result<Vec<u64>, GraphError> {
        let nodes = paths.iter().map(|path| self.find(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.sizes_below(&nodes))
    }

    /// The size of the closure of every path, in the order of [`Graph::iter`].
    pub fn closure_sizes(&self) -> Vec<u64> {
        self.sizes_below(&nodes(self.len()).collect::<Vec<_>>())
    }

    fn sizes_below(&self, asked: &[Node]) -> Vec<u64> {
        let mut sizes = Vec::with_capacity(asked.len());
        // For each path, which of the batch reach it.
        let mut reached_by = vec![0_u64; self.len()];
        for batch in asked.chunks(BATCH) {
            let mut sums = [0_u64; BATCH];
            let mut bit = 1_u64;
            for &node in batch {
                if let Some(mask) = reached_by.get_mut(node as usize) {
                    *mask |= bit;
                }
                bit = bit.rotate_left(1);
            }
            // References have smaller numbers: going down, a mask is complete when its turn comes.
            let highest = batch.iter().max().map_or(0, |&node| (node as usize).saturating_add(1));
            for (info, node) in self.iter().zip(nodes(highest)).rev() {
                let Some(mask) = reached_by.get_mut(node as usize).map(std::mem::take) else { continue };
                if mask == 0 {
                    continue;
                }
                for &reference in self.below(node) {
                    if let Some(below) = reached_by.get_mut(reference as usize) {
                        *below |= mask;
                    }
                }
                let mut rest = mask;
                while rest != 0 {
                    if let Some(sum) = sums.get_mut(rest.trailing_zeros() as usize) {
                        *sum = sum.saturating_add(info.nar_size);
                    }
                    rest &= rest.wrapping_sub(1);
                }
            }
            sizes.extend(sums.iter().take(batch.len()));
        }
        sizes
    }
}
