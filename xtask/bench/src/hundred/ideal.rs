//! What arithmetic allows. Pure.

/// Readers that start together and each read the same data whole, and the links between them and the data.
///
/// Readers are spread evenly over the nodes. Bytes flow without any cost but the links', so everybody waits for the tightest link:
///
/// - directly, every reader gets a copy of its own over the store's link and its node's:
///   a node with `n` of `N` readers takes `data * max(N / store, n / client)`;
/// - from the cache, the readers of a node share one copy, from workers that are all equally busy:
///   `C = min(N, nodes)` copies take `data * max(C / (workers * worker), 1 / client)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) readers: usize,
    pub(super) nodes: usize,
    pub(super) workers: usize,
    /// Bytes that each reader reads.
    pub(super) data: f64,
    /// Bytes per second of the store's link, of each worker's, and of each node's with readers.
    pub(super) store: f64,
    pub(super) worker: f64,
    pub(super) client: f64,
}

impl Setup {
    /// Mean seconds of a reader that reads the store.
    pub(super) fn direct(&self) -> f64 {
        let all = self.readers as f64 / self.store;
        let on_node = |node| self.readers / self.nodes + usize::from(node < self.readers % self.nodes);
        let sum = |node| on_node(node) as f64 * all.max(on_node(node) as f64 / self.client);
        self.data * (0..self.nodes).map(sum).sum::<f64>() / self.readers as f64
    }

    /// Mean seconds of a reader that reads a warm cache.
    pub(super) fn cached(&self) -> f64 {
        let copies = self.readers.min(self.nodes) as f64;
        self.data * (copies / (self.workers as f64 * self.worker)).max(1.0 / self.client)
    }

    /// By which part the cache shortens the mean time.
    pub(super) fn cut(&self) -> f64 {
        cut(self.cached(), self.direct())
    }
}

/// By which part `cached` is shorter than `direct`.
pub(super) fn cut(cached: f64, direct: f64) -> f64 {
    1.0 - cached / direct
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Links of 1 byte per second, and a store with twice as much.
    fn setup(readers: usize, workers: usize) -> Setup {
        Setup { readers, nodes: 10, workers, data: 1.0, store: 2.0, worker: 1.0, client: 1.0 }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn one_reader_is_as_fast_as_its_own_link_either_way() {
        assert!(near(setup(1, 5).direct(), 1.0) && near(setup(1, 5).cut(), 0.0));
    }

    #[test]
    fn many_readers_of_the_store_share_its_link() {
        assert!(near(setup(5, 5).direct(), 2.5));
        assert!(near(setup(100, 5).direct(), 50.0));
    }

    #[test]
    fn the_tightest_of_workers_and_nodes_counts() {
        // Ten copies from five links; from ten links each node's own link is as tight.
        assert!(near(setup(10, 5).cached(), 2.0) && near(setup(10, 10).cached(), 1.0));
        assert!(near(setup(5, 5).cut(), 0.6));
        assert!(near(setup(5, 20).cached(), 1.0));
    }

    #[test]
    fn readers_of_a_node_share_one_copy() {
        assert!(near(setup(100, 10).cached(), setup(10, 10).cached()));
        assert!(near(setup(100, 10).cut(), 0.98));
    }

    #[test]
    fn nodes_with_more_readers_take_longer_where_their_link_is_the_tightest() {
        let wide = Setup { store: 1e9, ..setup(15, 5) };
        // Five nodes with two readers each, five with one.
        assert!(near(wide.direct(), (10.0 * 2.0 + 5.0 * 1.0) / 15.0));
    }
}
