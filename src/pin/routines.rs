//! What a database's own routines may leave behind, so that a text which names none of those that do is known to be harmless.
//!
//! Pure: the catalogs' rows go in. A name stands for all routines and relations that have it, in whatever schema and with
//! whatever arguments. What a name may do is what its routines' bodies may do and everything that they name, or what
//! its relations run (triggers, defaults, rules, policies, checks …), and so on. What can run without anything being
//! named that leads to it (operators, casts, types) counts for every text.

use std::collections::HashMap;

use crate::sql::{Effects, Found, Identifier, Language, MAX_NAME_BYTES, has_constants, routine_effects};

/// A routine as the catalogs have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routine {
    /// `proname`.
    pub name: String,
    /// `lanname`.
    pub language: String,
    /// Whether it is declared VOLATILE.
    pub is_volatile: bool,
    /// Whether something else than a call by its name may run it.
    pub is_ambient: bool,
    /// Its source text.
    pub body: String,
}

/// What the catalogs say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogs {
    /// The routines that aren't PostgreSQL's own.
    pub routines: Vec<Routine>,
    /// Using the first name may run, read or write what has the second.
    pub leads: Vec<(String, String)>,
    /// What using a name may do by itself.
    pub effects: Vec<(String, Effects)>,
    /// Routines that DDL runs (event triggers).
    pub on_ddl: Vec<String>,
    /// Routines and types that expressions of indexes and statistics use.
    pub on_maintenance: Vec<String>,
    /// Types whose values are read or checked by routines.
    pub types: Vec<String>,
    /// What may be done without anything being named: by PostgreSQL's own functions behind operators and casts.
    pub ambient: Effects,
}

/// What is known of a database.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Routines {
    effects: HashMap<Box<[u8]>, Effects>,
    ambient: Effects,
    on_ddl: Effects,
    types: Effects,
    on_maintenance: Effects,
    custom: Vec<String>,
    keeps_constants: bool,
}

/// A name and where it leads.
#[derive(Debug, Default)]
struct Node {
    effects: Effects,
    leads: Vec<usize>,
}

impl Routines {
    /// From what the catalogs say.
    pub fn of(catalogs: &Catalogs) -> Self {
        let (mut nodes, mut places) = (Vec::<Node>::new(), HashMap::<&[u8], usize>::new());
        let names = catalogs.routines.iter().map(|routine| &routine.name);
        let names = names.chain(catalogs.leads.iter().flat_map(|(from, to)| [from, to]));
        for name in names.chain(catalogs.effects.iter().map(|(name, _)| name)) {
            places.entry(name.as_bytes()).or_insert_with(|| {
                nodes.push(Node::default());
                nodes.len() - 1
            });
        }
        let mut custom = Vec::new();
        for routine in &catalogs.routines {
            let mut leads: Vec<usize> = Vec::new();
            let effects = own_effects(routine, |found| match found {
                Found::Setting(name) if name.contains('.') => custom.push(name.to_ascii_lowercase()),
                Found::Setting(_) => {}
                Found::Identifier(identifier) => {
                    let mut buffer = [0; MAX_NAME_BYTES];
                    let place = identifier.fold(&mut buffer).and_then(|name| places.get(name));
                    leads.extend(place);
                }
            });
            let place = places.get(routine.name.as_bytes());
            if let Some(node) = place.and_then(|place| nodes.get_mut(*place)) {
                node.effects |= effects;
                node.leads.extend(leads);
            }
        }
        for (from, to) in &catalogs.leads {
            if let (Some(from), Some(to)) = (places.get(from.as_bytes()), places.get(to.as_bytes()))
                && let Some(node) = nodes.get_mut(*from)
            {
                node.leads.push(*to);
            }
        }
        for (name, effects) in &catalogs.effects {
            if let Some(node) = places
                .get(name.as_bytes())
                .and_then(|place| nodes.get_mut(*place))
            {
                node.effects |= *effects;
            }
        }
        spread(&mut nodes);
        let keeps_constants = catalogs.routines.iter().any(keeps_constants);
        custom.sort_unstable();
        custom.dedup();
        let effects_of = |name: &[u8]| {
            let node = places.get(name).and_then(|place| nodes.get(*place));
            node.map_or(Effects::NONE, |node| node.effects)
        };
        let ambient = catalogs.routines.iter().filter(|routine| routine.is_ambient);
        let ambient = ambient.fold(catalogs.ambient, |all, routine| {
            all | effects_of(routine.name.as_bytes())
        });
        let of_all = |names: &[String]| {
            let effects = names.iter().map(|name| effects_of(name.as_bytes()));
            effects.fold(Effects::NONE, Effects::union)
        };
        let effects = places
            .keys()
            .map(|name| (Box::from(*name), effects_of(name)))
            .filter(|(_, effects)| !effects.is_empty())
            .collect();
        Self {
            effects,
            ambient,
            on_ddl: of_all(&catalogs.on_ddl),
            types: of_all(&catalogs.types),
            on_maintenance: of_all(&catalogs.on_maintenance),
            custom,
            keeps_constants,
        }
    }

    /// What using this name may leave behind.
    #[inline]
    pub fn lookup(&self, identifier: &Identifier<'_>) -> Effects {
        if self.effects.is_empty() {
            return Effects::NONE;
        }
        let mut buffer = [0; MAX_NAME_BYTES];
        let known = identifier
            .fold(&mut buffer)
            .and_then(|name| self.effects.get(name));
        known.copied().unwrap_or_default()
    }

    /// What any text may leave behind that reads or writes something.
    pub fn ambient(&self) -> Effects {
        self.ambient
    }

    /// What is left behind besides by what has these `effects`, if it runs the expressions of indexes and statistics.
    fn maintained_by(&self, effects: Effects) -> Effects {
        if effects.intersects(Effects::MAINTAINS) {
            self.on_maintenance
        } else {
            Effects::NONE
        }
    }

    /// What reading a value of any of the database's own types may leave behind.
    pub fn checks(&self) -> Effects {
        self.all_of(self.types)
    }

    /// These effects and those of what is run without being named: by any text, by DDL, by maintenance.
    pub fn all_of(&self, effects: Effects) -> Effects {
        let mut all = effects | self.ambient;
        // Each may bring in the other.
        for _ in 0..2 {
            all |= self.maintained_by(all);
            if all.intersects(Effects::DDL) {
                all |= self.on_ddl;
            }
        }
        all
    }

    /// What reading the constants of a text may leave behind that has these `effects` if it is run: no more of it is run than checks
    /// of types, and one that isn't understood may name any.
    pub fn checks_within(&self, effects: Effects) -> Effects {
        if effects.intersects(Effects::UNKNOWN) {
            self.checks()
        } else {
            effects.common(self.checks())
        }
    }

    /// Whether a server connection may keep, for whoever calls a routine, what its constants meant for whoever called it first.
    pub fn keeps_constants(&self) -> bool {
        self.keeps_constants
    }

    /// Settings that routines set and that no view lists.
    pub fn custom(&self) -> &[String] {
        &self.custom
    }
}

/// Whether the server reads constants in its body when it plans it, and keeps the plan (documentation, "PL/pgSQL under the Hood").
fn keeps_constants(routine: &Routine) -> bool {
    matches!(routine.language.as_str(), "sql" | "plpgsql") && has_constants(routine.body.as_bytes())
}

/// The effects of the body alone.
fn own_effects(routine: &Routine, found: impl FnMut(Found<'_>)) -> Effects {
    match routine.language.as_str() {
        "sql" => {
            let effects = routine_effects(routine.body.as_bytes(), Language::Sql, found);
            // DO, whose code isn't read.
            let has_code = effects.intersects(Effects::CODE);
            let hidden = Effects::DYNAMIC | Effects::DYNAMIC_SETTING;
            effects | if has_code { hidden } else { Effects::NONE }
        }
        "plpgsql" => routine_effects(routine.body.as_bytes(), Language::PlPgSql, found),
        // Whoever declares a C function stable or immutable promises that it changes nothing.
        "c" if !routine.is_volatile => Effects::NONE,
        "c" => Effects::UNKNOWN,
        // Another name for one of PostgreSQL's own, of which it is said apart what it does.
        "internal" => Effects::NONE,
        // Other languages keep variables of their own for the session.
        _ => Effects::UNKNOWN | Effects::DYNAMIC_SETTING,
    }
}

/// Adds to each one's effects those of all that it leads to, and so on.
fn spread(nodes: &mut [Node]) {
    loop {
        let mut has_changed = false;
        for place in 0..nodes.len() {
            let Some(node) = nodes.get(place) else { continue };
            let known = node.effects;
            let leads = node.leads.iter().filter_map(|other| nodes.get(*other));
            let all = leads.fold(known, |all, more| all | more.effects);
            if let Some(node) = nodes.get_mut(place)
                && all != known
            {
                node.effects = all;
                has_changed = true;
            }
        }
        if !has_changed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routine(name: &str, language: &str, body: &str) -> Routine {
        Routine {
            name: name.to_owned(),
            language: language.to_owned(),
            is_volatile: true,
            is_ambient: false,
            body: body.to_owned(),
        }
    }

    fn lookup(routines: &Routines, name: &str) -> Effects {
        routines.lookup(&Identifier::parse(name.as_bytes()).unwrap())
    }

    #[test]
    fn who_calls_one_that_leaves_something_leaves_it_too() {
        let all = vec![
            routine(
                "harmless",
                "plpgsql",
                "begin new.updated_at := now(); return new; end",
            ),
            routine("inner", "sql", "select set_config('app.tenant', $1, false)"),
            routine("middle", "plpgsql", "begin perform Inner('x'); end"),
            routine("outer", "plpgsql", "begin perform public.\"middle\"(); end"),
            routine("perl", "plperl", "return 1"),
            routine("native", "c", "native"),
        ];
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let mut catalogs = Catalogs {
            routines: all,
            leads: vec![
                pair("orders", "harmless"),
                pair("view", "audited"),
                pair("audited", "outer"),
            ],
            ..Catalogs::default()
        };
        let routines = Routines::of(&catalogs);
        assert_eq!(lookup(&routines, "orders"), Effects::NONE);
        assert!(lookup(&routines, "view").contains(Effects::SETTING));
        assert_eq!(lookup(&routines, "harmless"), Effects::NONE);
        assert!(lookup(&routines, "OUTER").contains(Effects::SETTING));
        assert_eq!(lookup(&routines, "\"OUTER\""), Effects::NONE, "another name");
        assert_eq!(routines.custom(), ["app.tenant"]);
        assert!(lookup(&routines, "perl").contains(Effects::DYNAMIC_SETTING));
        assert!(lookup(&routines, "native").contains(Effects::UNKNOWN));
        assert_eq!(routines.ambient(), Effects::NONE);
        catalogs.routines[3].is_ambient = true;
        assert!(Routines::of(&catalogs).ambient().contains(Effects::SETTING));
    }
}
