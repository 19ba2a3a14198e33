//! A list that readers hold while it changes: each change makes a new one that shares most of the old. In memory alone; it knows
//! nothing of what it holds.

use std::sync::Arc;

/// Values in a chunk, at most.
const CHUNK: usize = 64;

type Chunk<T> = Arc<[(u64, Arc<T>)]>;

/// Values by id, ascending. Cloning one, and so changing one, costs a reference count for every 64 values or so; a change also copies
/// one chunk.
#[derive(Debug)]
pub(super) struct List<T> {
    /// None is empty.
    chunks: Vec<Chunk<T>>,
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone() }
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> List<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(_, value)| &**value)
    }

    /// Puts a value where its id belongs, in the place of the one of that id if there is one.
    pub(super) fn put(&mut self, id: u64, value: Arc<T>) {
        let at = self.chunks.partition_point(|chunk| chunk[0].0 <= id).saturating_sub(1);
        let Some(chunk) = self.chunks.get(at) else {
            self.chunks.push([(id, value)].into());
            return;
        };
        let place = chunk.partition_point(|(other, _)| *other < id);
        let is_there = chunk.get(place).is_some_and(|(other, _)| *other == id);
        let (before, after) = (&chunk[..place], &chunk[place + usize::from(is_there)..]);
        if before.len() + after.len() < CHUNK {
            self.chunks[at] = before.iter().cloned().chain([(id, value)]).chain(after.iter().cloned()).collect();
        } else if after.is_empty() {
            // The newest come last: what they find full stays full.
            self.chunks.insert(at + 1, [(id, value)].into());
        } else {
            let all: Vec<_> = before.iter().cloned().chain([(id, value)]).chain(after.iter().cloned()).collect();
            let (first, second) = all.split_at(CHUNK / 2);
            self.chunks[at] = first.into();
            self.chunks.insert(at + 1, second.into());
        }
    }

    /// Takes a value out, if it is there.
    pub(super) fn remove(&mut self, id: u64) {
        let Some(at) = self.chunks.partition_point(|chunk| chunk[0].0 <= id).checked_sub(1) else { return };
        let rest = |chunk: &Chunk<T>| chunk.iter().filter(|(other, _)| *other != id).cloned().collect();
        let rest: Vec<_> = rest(&self.chunks[at]);
        // What is left joins its neighbour where there is room: chunks stay half full on average.
        let before = at.checked_sub(1).filter(|before| self.chunks[*before].len() + rest.len() <= CHUNK);
        match before {
            _ if rest.is_empty() => drop(self.chunks.remove(at)),
            Some(before) => {
                self.chunks[before] = self.chunks[before].iter().cloned().chain(rest).collect();
                self.chunks.remove(at);
            }
            None => self.chunks[at] = rest.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_was_pushed_and_not_removed_in_order() {
        let mut list = List::default();
        let mut model: Vec<u64> = Vec::new();
        for step in 0..20_000_u64 {
            // Grows to a thousand and shrinks to nothing, twice over, losing now the oldest, now the newest, now one between.
            if step / 2_000 % 2 == 0 && step % 4 > 0 || model.is_empty() {
                list.put(step, Arc::new(step));
                model.push(step);
            } else {
                let gone = model.remove([0, model.len() / 2, model.len() - 1][step as usize % 3]);
                list.remove(gone);
                list.remove(gone);
            }
            if step % 97 == 0 {
                assert!(list.iter().eq(&model));
                assert!(list.chunks.windows(2).all(|pair| pair[0].len() + pair[1].len() > CHUNK / 2), "it stays dense");
            }
        }
        for id in model {
            list.remove(id);
        }
        assert!(list.is_empty() && list.iter().next().is_none());
    }

    #[test]
    fn a_value_goes_where_its_id_belongs_and_replaces_the_one_of_that_id() {
        let mut list = List::default();
        let mut model = std::collections::BTreeMap::new();
        for step in 0..5_000_u64 {
            let id = step * 7_919 % 1_000;
            list.put(id, Arc::new(step));
            model.insert(id, step);
            if step % 3 == 0 {
                let gone = (step * 31) % 1_000;
                list.remove(gone);
                model.remove(&gone);
            }
            if step % 97 == 0 {
                assert!(list.iter().eq(model.values()));
                assert!(list.chunks.iter().all(|chunk| chunk.len() <= CHUNK));
            }
        }
    }

    #[test]
    fn a_clone_stays_as_it_was() {
        let mut list = List::default();
        (0..200).for_each(|id| list.put(id, Arc::new(id)));
        let before = list.clone();
        (0..200).step_by(2).for_each(|id| list.remove(id));
        list.put(200, Arc::new(200));
        assert!(before.iter().copied().eq(0..200));
        assert!(list.iter().copied().eq((1..200).step_by(2).chain([200])));
    }
}
