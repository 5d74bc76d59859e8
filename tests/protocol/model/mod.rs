//! The refresh protocol of a single-use grant as a state machine that a checker explores: nodes, one row of a store, an
//! issuer, a network and an operator. `docs/protocol.md` is the same in prose. It shares no code with the host on purpose:
//! it says what the code should do, in a form small enough to try every order of events.
//!
//! | file | what lives there |
//! |---|---|
//! | `rules` | what a variant of the protocol does, and how often what may go wrong |
//! | `world` | the state |
//! | `actions` | what may happen next |
//! | `node` | a flow: `model/flow`'s begin, send and answers |
//! | `record` | commits: `model/flow/records` and `unsaved` |
//! | `outside` | issuer, network, operator and time |
//! | `properties` | what must always hold, and what must be seen |

mod actions;
mod node;
mod outside;
mod properties;
mod record;
mod rules;
mod world;

use stateright::{Model, Property};

pub use actions::Action;
pub use rules::*;
pub use world::World;

/// One variant of the protocol, and how much may go wrong in it.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub rules: Rules,
    pub bounds: Bounds,
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.enabled(self, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        Some(world.after(self, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }
}
