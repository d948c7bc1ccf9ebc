//! No circle of modules: each module imports only modules below it. Read from the syntax trees, so that
//! `super::super::` and nested `use` lists count. Paths within macros are not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, UseTree, Visibility};

use super::directions::sources;
use crate::support::root;

/// A module, such as `["group", "judge", "rollout"]`, or an item in it.
pub(super) type Name = Vec<String>;

/// What one file imports and what it exports again, as written.
#[derive(Default)]
struct Imports {
    used: Vec<Name>,
    exported: Vec<Name>,
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test")
    })
}

fn flatten(tree: &UseTree, prefix: &[String], into: &mut Vec<Name>) {
    let with = |name: String| [prefix, &[name]].concat();
    match tree {
        UseTree::Path(path) => flatten(&path.tree, &with(path.ident.to_string()), into),
        UseTree::Name(name) if name.ident == "self" => into.push(prefix.to_vec()),
        UseTree::Name(name) => into.push(with(name.ident.to_string())),
        UseTree::Rename(rename) => into.push(with(rename.ident.to_string())),
        UseTree::Glob(_) => into.push(prefix.to_vec()),
        UseTree::Group(group) => group.items.iter().for_each(|item| flatten(item, prefix, into)),
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let into = if matches!(item.vis, Visibility::Inherited) { &mut self.used } else { &mut self.exported };
        flatten(&item.tree, &[], into);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.used.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    // `pub(super)` imports nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }
}

/// The name of the module in a file of `src`. Its first part is a folder, which is a crate or `campaign`.
pub(super) fn name_of(path: &Path) -> Name {
    let path = path.strip_prefix(root().join("src")).unwrap().with_extension("");
    let mut names: Name = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    names.pop_if(|last| last == "mod");
    names
}

/// The modules of `src`, each with its imports.
fn modules() -> BTreeMap<Name, Imports> {
    let src = root().join("src");
    let parsed = |path: &Path| {
        let mut imports = Imports::default();
        imports.visit_file(&syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap());
        imports
    };
    let files =
        sources(&src).into_iter().filter(|path| !path.starts_with(src.join("bin")) && *path != src.join("lib.rs"));
    files.map(|path| (name_of(&path), parsed(&path))).collect()
}

/// The path from the root of `src`, `None` for one into another crate.
pub(super) fn absolute<T>(module: &[String], path: &[String], modules: &BTreeMap<Name, T>) -> Option<Name> {
    match path.first()?.as_str() {
        // Folders are crates, in which their own modules and other crates go by the same kind of path.
        "crate" if modules.contains_key(&[&module[..1], path.get(1..2)?].concat()) => {
            Some([&module[..1], &path[1..]].concat())
        }
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => {
            let up = path.iter().take_while(|name| *name == "super").count();
            Some([module.get(..module.len().checked_sub(up)?)?, &path[up..]].concat())
        }
        first if modules.contains_key(&[module, &[first.to_owned()]].concat()) => Some([module, path].concat()),
        _ => None,
    }
}

/// The module that `path` leads to, through what modules export again.
fn target(path: &[String], modules: &BTreeMap<Name, Imports>, depth: usize) -> Option<Name> {
    let length = (1..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
    let module = &path[..length];
    let exported = path.get(length).and_then(|name| {
        let exports = modules[module].exported.iter().filter(|export| export.last() == Some(name));
        exports.filter_map(|export| absolute(module, export, modules)).next()
    });
    match exported {
        Some(original) if depth < 8 => target(&original, modules, depth + 1),
        _ => Some(module.to_vec()),
    }
}

/// The modules that each module imports.
fn imports() -> BTreeMap<Name, BTreeSet<Name>> {
    let modules = modules();
    let targets_of = |module: &Name, found: &Imports| -> BTreeSet<Name> {
        let targets = found.used.iter().filter_map(|path| target(&absolute(module, path, &modules)?, &modules, 0));
        targets.filter(|target| target != module).collect()
    };
    modules.iter().map(|(module, found)| (module.clone(), targets_of(module, found))).collect()
}

/// Facts lie under judgements, judgements under reports.
#[test]
fn folders_of_group_import_only_folders_before_them() {
    let order = ["spec", "desired", "observed", "judge", "status", "events"];
    let place = |module: &Name| {
        let folder = module.get(1).filter(|_| module[0] == "group")?;
        order.iter().position(|known| known == folder)
    };
    let mut wrong = Vec::new();
    for (module, targets) in imports() {
        for target in targets {
            if place(&target) > place(&module) && module[0] == "group" && module.len() > 1 {
                wrong.push(format!("{} imports {}", module.join("::"), target.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut imports = imports();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 300, "the test does not see the imports: {imports:?}");
    // What imports nothing that is left is in no circle.
    while let Some(free) = imports.iter().find(|(_, targets)| targets.is_empty()).map(|(module, _)| module.clone()) {
        imports.remove(&free);
        for targets in imports.values_mut() {
            targets.remove(&free);
        }
    }
    // Nor is what only imports a circle.
    while let Some(top) =
        imports.keys().find(|module| !imports.values().any(|targets| targets.contains(*module))).cloned()
    {
        imports.remove(&top);
    }
    let circles: Vec<_> = imports
        .iter()
        .map(|(module, targets)| {
            let targets: Vec<_> = targets.iter().map(|target| target.join("::")).collect();
            format!("{} imports {}", module.join("::"), targets.join(", "))
        })
        .collect();
    assert!(circles.is_empty(), "{circles:#?}");
}
