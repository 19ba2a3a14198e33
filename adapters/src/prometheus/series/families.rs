//! Families of series: who has which name.
//!
//! A name, a type and a help text enter; a family leaves that a page and a request can show beside all others. A name belongs to the
//! type that had it first, until the family has no series left. Series of another type stand under the name with their type appended
//! (`requests` the gauge beside `requests` the histogram is `requests_gauge`); when that is taken as well, they have no family.
//! A histogram also has its name with `_bucket`, `_sum` and `_count`, a summary with `_sum` and `_count`.

use std::collections::HashMap;
use std::sync::Arc;

use super::Type;
use crate::prometheus::labels::put_label;

/// Series of one name and type.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its place among all families; free again once the family is gone.
    pub(crate) id: u32,
    name: String,
    of: Type,
    help: &'static str,
    /// The encoded `__name__` label of each of the type's suffixes.
    name_labels: Box<[Box<[u8]>]>,
}

impl Family {
    fn new(id: u32, name: &str, of: Type, help: &'static str) -> Self {
        let name_labels = of.suffixes().iter().map(|suffix| {
            let mut packed = Vec::new();
            put_label(&mut packed, "__name__", &format!("{name}{suffix}"));
            packed.into()
        });
        Self { id, name: name.to_owned(), of, help, name_labels: name_labels.collect() }
    }

    /// The name of its series.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its series are.
    pub fn of(&self) -> Type {
        self.of
    }

    /// What it says of itself.
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// The encoded `__name__` label for the suffix with this number in [`Type::suffixes`].
    pub(crate) fn name_label(&self, suffix: usize) -> &[u8] {
        &self.name_labels[suffix]
    }
}

/// All families, and the names they have. As many as there are series, at most.
#[derive(Debug, Default)]
pub(super) struct Families {
    by_id: Vec<Option<Member>>,
    free: Vec<u32>,
    /// Who has a name: the names with suffixes too.
    owners: HashMap<String, u32>,
}

#[derive(Debug)]
struct Member {
    family: Arc<Family>,
    series: usize,
}

impl Families {
    /// The family for one more series; the caller counts it with [`Families::add`]. `None` if the name and its way out are taken.
    pub(super) fn enter(&mut self, name: &str, of: Type, help: &'static str) -> Option<Arc<Family>> {
        self.under(name, of, help).or_else(|| self.under(&format!("{name}_{}", of.as_str()), of, help))
    }

    fn under(&mut self, name: &str, of: Type, help: &'static str) -> Option<Arc<Family>> {
        if let Some(id) = self.owners.get(name) {
            let member = self.by_id[*id as usize].as_ref()?;
            return (member.family.name == name && member.family.of == of).then(|| Arc::clone(&member.family));
        }
        let names = || of.suffixes().iter().map(|suffix| format!("{name}{suffix}"));
        if names().any(|name| self.owners.contains_key(&name)) {
            return None;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.by_id.push(None);
            (self.by_id.len() - 1) as u32
        });
        let family = Arc::new(Family::new(id, name, of, help));
        self.by_id[id as usize] = Some(Member { family: Arc::clone(&family), series: 0 });
        self.owners.extend(names().map(|name| (name, id)));
        Some(family)
    }

    /// Counts one more series of a family.
    pub(super) fn add(&mut self, id: u32) {
        if let Some(member) = &mut self.by_id[id as usize] {
            member.series += 1;
        }
    }

    /// Counts one series less; the last one frees the names.
    pub(super) fn leave(&mut self, id: u32) {
        if let Some(member) = &mut self.by_id[id as usize] {
            member.series = member.series.saturating_sub(1);
        }
        self.settle(id);
    }

    /// Frees the names of a family without series, such as one that was entered for a series that then had no room.
    pub(super) fn settle(&mut self, id: u32) {
        let place = &mut self.by_id[id as usize];
        let Some(member) = place.take_if(|member| member.series == 0) else { return };
        for suffix in member.family.of.suffixes() {
            self.owners.remove(&format!("{}{suffix}", member.family.name));
        }
        self.free.push(id);
    }

    /// Every family.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Family>> {
        self.by_id.iter().flatten().map(|member| &member.family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(families: &mut Families, name: &str, of: Type) -> Option<(u32, String)> {
        let family = families.enter(name, of, "")?;
        families.add(family.id);
        Some((family.id, family.name.clone()))
    }

    #[test]
    fn a_name_belongs_to_the_type_that_had_it_first() {
        let mut families = Families::default();
        let name = |made: Option<(u32, String)>| made.map(|(_, name)| name);
        assert_eq!(name(enter(&mut families, "x", Type::Counter)).unwrap(), "x");
        assert_eq!(name(enter(&mut families, "x", Type::Counter)).unwrap(), "x");
        assert_eq!(name(enter(&mut families, "x", Type::Gauge)).unwrap(), "x_gauge");
        assert_eq!(name(enter(&mut families, "x_gauge", Type::Counter)).unwrap(), "x_gauge_counter");
        assert_eq!(name(enter(&mut families, "y_count", Type::Gauge)).unwrap(), "y_count");
        assert_eq!(name(enter(&mut families, "y", Type::Histogram)).unwrap(), "y_histogram");
        assert_eq!(name(enter(&mut families, "y_histogram_sum", Type::Gauge)).unwrap(), "y_histogram_sum_gauge");
        assert_eq!(name(enter(&mut families, "z_summary", Type::Gauge)).unwrap(), "z_summary");
        assert_eq!(name(enter(&mut families, "z_sum", Type::Gauge)).unwrap(), "z_sum");
        assert_eq!(name(enter(&mut families, "z", Type::Summary)), None, "both names are taken");
    }

    #[test]
    fn names_are_free_again_after_the_last_series() {
        let mut families = Families::default();
        let (histogram, _) = enter(&mut families, "x", Type::Histogram).unwrap();
        families.leave(histogram);
        assert!(families.owners.is_empty());
        assert_eq!(enter(&mut families, "x_sum", Type::Gauge).unwrap(), (histogram, "x_sum".to_owned()));
        assert_eq!(families.iter().count(), 1);
    }
}
