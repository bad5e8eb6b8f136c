//! Pure: the bound on the cost of a look-up among templates.

/// The steps that are left for a look-up: a step is a template or a byte that is read.
#[derive(Debug)]
pub struct Steps {
    pub(super) n_left: usize,
    is_cut: bool,
}

impl Steps {
    /// This number of steps.
    pub fn new(n: usize) -> Steps {
        Steps { n_left: n, is_cut: false }
    }

    /// Takes so many steps. False if fewer were left: then the caller leaves the work undone.
    pub fn take(&mut self, n: usize) -> bool {
        let left = self.n_left.checked_sub(n);
        self.is_cut |= left.is_none();
        self.n_left = left.unwrap_or(0);
        left.is_some()
    }

    /// True if some work was left undone because there were too few steps.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Does a part of the work, for which at most `max` of the steps may be taken.
    pub fn part<T>(&mut self, max: usize, work: impl FnOnce(&mut Steps) -> T) -> T {
        let n = self.n_left.min(max);
        let mut part = Steps::new(n);
        let done = work(&mut part);
        self.n_left -= n - part.n_left;
        self.is_cut |= part.is_cut;
        done
    }
}
