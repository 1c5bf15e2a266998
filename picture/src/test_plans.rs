//! Plans for the tests of pictures.

use std::sync::Arc;

use ncc_copy::Plan;
use ncc_store::{NarHash, PathInfo, StorePath};

use super::model::{Model, State};

/// A plan that is made path by path.
#[derive(Default)]
pub(crate) struct PlanBuilder {
    infos: Vec<(State, Arc<PathInfo>)>,
    roots: Vec<StorePath>,
}

/// A path whose digest begins with a number.
pub(crate) fn path(number: usize, name: &str) -> StorePath {
    // Most significant first: 20 bytes give 32 digits of 5 bits.
    let mut digest = [0; 20];
    digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
    let encoded = StorePath::from_parts(&digest, name).unwrap();
    // nix32 writes the last digits first.
    let reversed: String = encoded.digest().chars().rev().collect();
    StorePath::from_base_name(&format!("{reversed}-{name}")).unwrap()
}

impl PlanBuilder {
    /// Adds a path, which gets the next number.
    pub(crate) fn add(
        &mut self,
        state: State,
        name: &str,
        nar_size: u64,
        references: &[&StorePath],
    ) -> StorePath {
        let path = path(self.infos.len() + 1, name);
        let mut info = PathInfo::new(path.clone(), NarHash::of(b""), nar_size);
        info.references =
            references.iter().map(|reference| (*reference).clone()).chain([path.clone()]).collect();
        self.infos.push((state, Arc::new(info)));
        path
    }

    /// Names what is wanted.
    pub(crate) fn roots(mut self, roots: &[&StorePath]) -> Self {
        self.roots = roots.iter().map(|root| (*root).clone()).collect();
        self
    }

    /// The plan. What is substituted counts as present there.
    pub(crate) fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        plan.roots.clone_from(&self.roots);
        for (state, info) in &self.infos {
            let place = if *state == State::Send { &mut plan.to_send } else { &mut plan.present };
            place.push(Arc::clone(info));
        }
        plan
    }

    /// The model, with what is substituted.
    pub(crate) fn model(&self) -> Model {
        let groups = State::ALL.map(|state| {
            let of = self.infos.iter().filter(|(its, _)| *its == state).map(|(_, info)| Arc::clone(info));
            (state, of.collect::<Vec<_>>())
        });
        let groups = groups.each_ref().map(|(state, infos)| (*state, infos.as_slice()));
        Model::with_states(&self.roots, &groups).unwrap()
    }
}
