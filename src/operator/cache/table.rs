//! A table of the objects of one kind, updated by watches.

use std::collections::{HashMap, HashSet};

use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// The scope of a watch: one namespace, or all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope(pub(crate) Option<String>);

impl Scope {
    pub(super) fn holds(&self, namespace: &str) -> bool {
        self.0.as_deref().is_none_or(|own| own == namespace)
    }
}

/// By namespace, then by name: thousands of objects share a namespace.
type Entries<V> = HashMap<Box<str>, HashMap<Box<str>, V>>;

/// The entries, each made from an object of a watch.
pub(super) struct Table<V> {
    entries: Entries<V>,
    /// The lists in progress.
    listings: HashMap<Scope, Entries<V>>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), listings: HashMap::new() }
    }
}

/// An entry that was added, changed or removed.
pub(super) struct Change<'a, V> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) before: Option<&'a V>,
    pub(super) after: Option<&'a V>,
}

impl<V> Table<V> {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&V> {
        self.entries.get(namespace)?.get(name)
    }

    pub(super) fn get_mut(&mut self, namespace: &str, name: &str) -> Option<&mut V> {
        self.entries.get_mut(namespace)?.get_mut(name)
    }

    /// Returns every entry with its namespace and name.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &str, &mut V)> {
        self.entries
            .iter_mut()
            .flat_map(|(namespace, inner)| inner.iter_mut().map(|(name, entry)| (&**namespace, &**name, entry)))
    }

    pub(super) fn insert(&mut self, namespace: &str, name: &str, entry: V) -> Option<V> {
        insert(&mut self.entries, namespace, name, entry)
    }

    /// Applies an event of the watch of `scope`. `entry_of` makes an entry from an object and the former entry; `None`
    /// keeps the former entry. `on_change` is called for every entry that is stored or removed.
    pub(super) fn apply_event<K: ResourceExt>(
        &mut self,
        scope: &Scope,
        event: Event<K>,
        entry_of: impl Fn(K, Option<&V>) -> Option<V>,
        mut on_change: impl FnMut(Change<'_, V>),
    ) where
        V: Clone,
    {
        match event {
            Event::Init => {
                self.listings.insert(scope.clone(), HashMap::new());
            }
            Event::InitApply(object) => {
                let (namespace, name) = names_of(&object);
                let before = self.entries.get(&*namespace).and_then(|inner| inner.get(&*name));
                let entry = entry_of(object, before).or_else(|| before.cloned());
                if let (Some(entry), Some(listing)) = (entry, self.listings.get_mut(scope)) {
                    insert(listing, &namespace, &name, entry);
                }
            }
            Event::InitDone => self.replace(scope, on_change),
            Event::Apply(object) => {
                let (namespace, name) = names_of(&object);
                let before = self.get(&namespace, &name);
                let Some(entry) = entry_of(object, before) else { return };
                on_change(Change { namespace: &namespace, name: &name, before, after: Some(&entry) });
                self.insert(&namespace, &name, entry);
            }
            Event::Delete(object) => {
                let (namespace, name) = names_of(&object);
                if let Some(before) = self.remove(&namespace, &name) {
                    on_change(Change { namespace: &namespace, name: &name, before: Some(&before), after: None });
                }
            }
        }
    }

    /// Updates the list of `scope` in progress to the present entries.
    pub(super) fn refresh_listing(&mut self, scope: &Scope)
    where
        V: Clone,
    {
        let Self { entries, listings } = self;
        for (namespace, inner) in listings.get_mut(scope).into_iter().flatten() {
            for (name, entry) in inner {
                if let Some(now) = entries.get(namespace).and_then(|inner| inner.get(name)) {
                    entry.clone_from(now);
                }
            }
        }
    }

    fn remove(&mut self, namespace: &str, name: &str) -> Option<V> {
        let inner = self.entries.get_mut(namespace)?;
        let removed = inner.remove(name);
        if inner.is_empty() {
            self.entries.remove(namespace);
        }
        removed
    }

    /// Replaces the entries of `scope` by its complete list.
    fn replace(&mut self, scope: &Scope, mut on_change: impl FnMut(Change<'_, V>)) {
        let mut listing = self.listings.remove(scope).unwrap_or_default();
        let namespaces: HashSet<Box<str>> =
            self.entries.keys().filter(|namespace| scope.holds(namespace)).chain(listing.keys()).cloned().collect();
        for namespace in namespaces {
            let new = listing.remove(&namespace).unwrap_or_default();
            let old = self.entries.remove(&namespace).unwrap_or_default();
            for (name, before) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                on_change(Change { namespace: &namespace, name, before: Some(before), after: None });
            }
            for (name, after) in &new {
                on_change(Change { namespace: &namespace, name, before: old.get(name), after: Some(after) });
            }
            if !new.is_empty() {
                self.entries.insert(namespace, new);
            }
        }
    }
}

fn insert<V>(entries: &mut Entries<V>, namespace: &str, name: &str, entry: V) -> Option<V> {
    match entries.get_mut(namespace) {
        Some(inner) => inner.insert(name.into(), entry),
        None => entries.entry(namespace.into()).or_default().insert(name.into(), entry),
    }
}

fn names_of(object: &impl ResourceExt) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(namespace: &str, name: &str, version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some(namespace.to_owned());
        map.metadata.name = Some(name.to_owned());
        map.metadata.resource_version = Some(version.to_owned());
        map
    }

    /// Applies events. Returns the changes, as "namespace/name before after".
    fn feed(table: &mut Table<String>, scope: Option<&str>, events: Vec<Event<ConfigMap>>) -> Vec<String> {
        let scope = Scope(scope.map(str::to_owned));
        let mut changes = Vec::new();
        for event in events {
            table.apply_event(
                &scope,
                event,
                |map, _| map.metadata.resource_version,
                |change| {
                    let [before, after] = [change.before, change.after].map(|entry| entry.map_or("-", |text| text));
                    changes.push(format!("{}/{} {before} {after}", change.namespace, change.name));
                },
            );
        }
        changes.sort();
        changes
    }

    #[test]
    fn complete_list_reports_added_changed_and_removed_entries() {
        let mut table = Table::default();
        let list = |maps: Vec<ConfigMap>| {
            let items = maps.into_iter().map(Event::InitApply);
            std::iter::once(Event::Init).chain(items).chain([Event::InitDone]).collect::<Vec<_>>()
        };
        assert_eq!(feed(&mut table, None, list(vec![map("a", "x", "1"), map("b", "y", "2")])), ["a/x - 1", "b/y - 2"]);
        assert_eq!(feed(&mut table, None, list(vec![map("b", "y", "3")])), ["a/x 1 -", "b/y 2 3"]);
        assert_eq!(table.get("a", "x"), None);
    }

    #[test]
    fn incomplete_list_changes_nothing() {
        let mut table = Table::default();
        feed(&mut table, None, vec![Event::Apply(map("a", "x", "1"))]);
        assert_eq!(feed(&mut table, None, vec![Event::Init, Event::InitApply(map("b", "y", "2"))]), [""; 0]);
        assert_eq!((table.get("a", "x").map(String::as_str), table.get("b", "y")), (Some("1"), None));
    }

    #[test]
    fn list_of_one_namespace_leaves_others_alone() {
        let mut table = Table::default();
        feed(&mut table, Some("a"), vec![Event::Apply(map("a", "x", "1"))]);
        feed(&mut table, Some("b"), vec![Event::Apply(map("b", "y", "2"))]);
        assert_eq!(feed(&mut table, Some("b"), vec![Event::Init, Event::InitDone]), ["b/y 2 -"]);
        assert_eq!(table.get("a", "x").map(String::as_str), Some("1"));
    }

    #[test]
    fn deletion_is_reported_once() {
        let mut table = Table::default();
        feed(&mut table, None, vec![Event::Apply(map("a", "x", "1"))]);
        assert_eq!(feed(&mut table, None, vec![Event::Delete(map("a", "x", "2"))]), ["a/x 1 -"]);
        assert_eq!(feed(&mut table, None, vec![Event::Delete(map("a", "x", "2"))]), [""; 0]);
    }
}
