//! The public surface of the library `k8sensus`, as a snapshot, so that a review sees each change of it.
//!
//! Read from the syntax trees: tools that read the compiler's own view (cargo-public-api, cargo-semver-checks) need
//! nightly Rust or a published version. Shown is the library with all of its features. Not shown are automatic traits such
//! as `Send`, and what `#[doc(hidden)]` hides.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use syn::{Attribute, Fields, FnArg, ImplItem, Item, ItemImpl, Pat, Signature, TraitItem, Type, UseTree, Visibility};
use syn::{ItemUse, parse_quote};

use super::directions::sources;
use super::modules::{Name, absolute, name_of};
use crate::support::root;

/// The items of each module.
type Modules = BTreeMap<Name, Vec<Item>>;

/// What a module exports, by name: an item with its impls, or a module.
type Exports = BTreeMap<String, Vec<Item>>;

fn modules() -> Modules {
    let src = root().join("src");
    let folders = ["campaign", "election", "protocol", "runtime"];
    let files = folders.iter().flat_map(|folder| sources(&src.join(folder))).chain([src.join("lib.rs")]);
    let items = |path: &Path| syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap().items;
    let mut modules: Modules = files.map(|path| (name_of(&path), items(&path))).collect();
    let library = modules.remove(&["lib".to_owned()][..]).unwrap();
    modules.insert(Name::new(), library);
    modules
}

fn is_public(visibility: &Visibility, attributes: &[Attribute]) -> bool {
    let is_hidden = attributes.iter().any(|attribute| {
        attribute.path().is_ident("doc") && attribute.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "hidden")
    });
    matches!(visibility, Visibility::Public(_)) && !is_hidden
}

/// Keeps the attributes that users of an item notice.
fn strip(attributes: &mut Vec<Attribute>) {
    let kept = ["cfg", "default", "deprecated", "derive", "from", "must_use", "non_exhaustive"];
    attributes.retain(|attribute| kept.iter().any(|name| attribute.path().is_ident(name)));
}

/// Replaces private fields by one of the type `Private`.
fn strip_fields(fields: &mut Fields) {
    let has_private = !fields.iter().all(|field| is_public(&field.vis, &field.attrs));
    match fields {
        Fields::Named(named) if has_private => {
            let public = named.named.iter().filter(|field| is_public(&field.vis, &field.attrs));
            *named = parse_quote!({ #(#public,)* private: Private });
        }
        Fields::Unnamed(unnamed) if has_private => *unnamed = parse_quote!((Private)),
        _ => {}
    }
    fields.iter_mut().for_each(|field| strip(&mut field.attrs));
}

/// Removes `mut` from arguments, which concerns only the body of the function.
fn strip_signature(signature: &mut Signature) {
    for argument in &mut signature.inputs {
        match argument {
            FnArg::Receiver(receiver) if receiver.reference.is_none() => receiver.mutability = None,
            FnArg::Typed(typed) => {
                if let Pat::Ident(pattern) = &mut *typed.pat {
                    pattern.mutability = None;
                }
            }
            FnArg::Receiver(_) => {}
        }
    }
}

/// Of the impl of a trait only the associated types are left, of any other its public items in the order of their names;
/// `None` if it has none.
fn strip_impl(mut item: ItemImpl) -> Option<Item> {
    let of_trait = item.trait_.is_some();
    item.items.retain(|inner| match inner {
        ImplItem::Fn(inner) => !of_trait && is_public(&inner.vis, &inner.attrs),
        ImplItem::Const(inner) => !of_trait && is_public(&inner.vis, &inner.attrs),
        _ => true,
    });
    item.items.sort_by_key(|inner| match inner {
        ImplItem::Fn(inner) => Some(inner.sig.ident.to_string()),
        _ => None,
    });
    for inner in &mut item.items {
        match inner {
            ImplItem::Fn(function) => {
                strip(&mut function.attrs);
                strip_signature(&mut function.sig);
                function.block = parse_quote!({});
            }
            ImplItem::Const(constant) => strip(&mut constant.attrs),
            _ => {}
        }
    }
    strip(&mut item.attrs);
    (of_trait || !item.items.is_empty()).then_some(Item::Impl(item))
}

/// Returns the name of an item that is public where it is defined, with the item as users see it. Modules and imports
/// have none.
fn strip_item(item: &Item) -> Option<(String, Item)> {
    let mut item = item.clone();
    let (visibility, attributes, name) = match &mut item {
        Item::Const(inner) => (&inner.vis, &mut inner.attrs, &inner.ident),
        Item::Enum(inner) => {
            for variant in &mut inner.variants {
                strip(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| strip(&mut field.attrs));
            }
            (&inner.vis, &mut inner.attrs, &inner.ident)
        }
        Item::Fn(inner) => {
            strip_signature(&mut inner.sig);
            *inner.block = parse_quote!({});
            (&inner.vis, &mut inner.attrs, &inner.sig.ident)
        }
        Item::Static(inner) => (&inner.vis, &mut inner.attrs, &inner.ident),
        Item::Struct(inner) => {
            strip_fields(&mut inner.fields);
            (&inner.vis, &mut inner.attrs, &inner.ident)
        }
        Item::Trait(inner) => {
            for inner in &mut inner.items {
                if let TraitItem::Fn(function) = inner {
                    strip(&mut function.attrs);
                    // An empty body shows that it has a default.
                    function.default = function.default.as_ref().map(|_| parse_quote!({}));
                }
            }
            (&inner.vis, &mut inner.attrs, &inner.ident)
        }
        Item::Type(inner) => (&inner.vis, &mut inner.attrs, &inner.ident),
        Item::Impl(_) | Item::Mod(_) | Item::Use(_) => return None,
        Item::Macro(call) if call.ident.is_none() => return None,
        _ => panic!("this test does not know such an item: {}", prettyplease::unparse(&file_of(vec![item]))),
    };
    let name = is_public(visibility, attributes).then(|| name.to_string())?;
    strip(attributes);
    Some((name, item))
}

/// Returns the impls for the type `name` in the crate of `module`.
fn impls(module: &[String], name: &str, modules: &Modules) -> Vec<Item> {
    let of_crate = modules.iter().filter(|(other, _)| other.first() == module.first());
    let items = of_crate.flat_map(|(_, items)| items);
    let of_type = items.filter_map(|item| match item {
        Item::Impl(item) => match &*item.self_ty {
            Type::Path(path) if path.path.segments.last()?.ident == name => strip_impl(item.clone()),
            _ => None,
        },
        _ => None,
    });
    of_type.collect()
}

/// Returns the imported paths, each with the name that it gets.
fn imports(tree: &UseTree, prefix: &[String]) -> Vec<(Name, String)> {
    let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(path) => imports(&path.tree, &with(&path.ident)),
        UseTree::Name(name) => vec![(with(&name.ident), name.ident.to_string())],
        UseTree::Rename(rename) => vec![(with(&rename.ident), rename.rename.to_string())],
        UseTree::Group(group) => group.items.iter().flat_map(|item| imports(item, prefix)).collect(),
        UseTree::Glob(_) => panic!("{}::* hides what is exported", prefix.join("::")),
    }
}

/// Returns what an import of `module` exports.
fn reexports(module: &[String], item: &ItemUse, modules: &Modules) -> Exports {
    let mut exports = Exports::new();
    for (path, name) in imports(&item.tree, &[]) {
        let target = match path[0].strip_prefix("k8sensus_") {
            Some(folder) => Some([&[folder.to_owned()], &path[1..]].concat()),
            None => absolute(module, &path, modules),
        };
        let missing = || -> ! { panic!("{} exports {}, which is not found", module.join("::"), path.join("::")) };
        let target = target.unwrap_or_else(|| missing());
        let items = match &target[..] {
            _ if modules.contains_key(&target) => vec![nested(&name, exports_of(&target, modules))],
            // The module `election` shows it.
            [election, ..] if election == "election" && module[..] == ["campaign"] => {
                let ident = ident(&name);
                vec![parse_quote!(pub use crate::election::#ident;)]
            }
            [parent @ .., last] => exports_of(parent, modules).remove(last).unwrap_or_else(|| missing()),
            [] => missing(),
        };
        exports.insert(name, items);
    }
    exports
}

fn ident(name: &str) -> syn::Ident {
    syn::parse_str(name).unwrap()
}

fn file_of(items: Vec<Item>) -> syn::File {
    syn::File { shebang: None, attrs: Vec::new(), items }
}

fn nested(name: &str, exports: Exports) -> Item {
    let name = ident(name);
    let items = exports.into_values().flatten();
    parse_quote!(pub mod #name { #(#items)* })
}

/// Returns what a module exports.
fn exports_of(module: &[String], modules: &Modules) -> Exports {
    let mut exports = Exports::new();
    for item in &modules[module] {
        match item {
            Item::Mod(child) if is_public(&child.vis, &child.attrs) => {
                let name = child.ident.to_string();
                let path = [module, std::slice::from_ref(&name)].concat();
                exports.insert(name.clone(), vec![nested(&name, exports_of(&path, modules))]);
            }
            Item::Use(item) if is_public(&item.vis, &item.attrs) => exports.extend(reexports(module, item, modules)),
            item => exports.extend(strip_item(item).map(|(name, item)| {
                let impls = impls(module, &name, modules);
                (name, [vec![item], impls].concat())
            })),
        }
    }
    exports
}

#[test]
fn public_surface_matches_the_snapshot() {
    let modules = modules();
    let items = exports_of(&[], &modules).into_values().flatten().collect();
    insta::assert_snapshot!("public_api", prettyplease::unparse(&file_of(items)));
}
