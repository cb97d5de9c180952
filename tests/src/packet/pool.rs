//! Loaded programs that the tests of one process have in turn: the verifier takes a second for them, and to put their
//! maps back takes some hundredths of one.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::Mutex,
    thread,
};

use aya::Ebpf;

use super::{contents::Contents, rig::Sizes};

/// What no test has, by what it was loaded with.
static IDLE: Mutex<BTreeMap<Sizes, Vec<(Ebpf, Contents)>>> = Mutex::new(BTreeMap::new());

/// Programs and their maps, for as long as a test has them.
pub(super) struct Lent {
    /// There until the end.
    object: Option<Ebpf>,
    /// Where they go then, and with what in their maps; `None` if nobody else may have them.
    home: Option<(Sizes, Contents)>,
}

// === impl Lent ===

impl Lent {
    /// Programs for this test alone.
    pub(super) fn alone(object: Ebpf) -> Self {
        Self {
            object: Some(object),
            home: None,
        }
    }

    /// Programs that another test gave back with their maps as they were loaded; if there are none, new ones.
    pub(super) fn shared(sizes: Sizes, load: impl FnOnce() -> Self) -> Self {
        let idle = IDLE.lock().unwrap().get_mut(&sizes).and_then(Vec::pop);
        if let Some((object, loaded)) = idle {
            return Self {
                object: Some(object),
                home: Some((sizes, loaded)),
            };
        }
        let mut new = load();
        new.home = Some((sizes, Contents::of(&new)));
        new
    }

    /// Whether another test may have them later.
    pub(super) fn is_shared(&self) -> bool {
        self.home.is_some()
    }

    /// No other test may have them.
    pub(super) fn keep_from_others(&mut self) {
        self.home = None;
    }
}

impl Deref for Lent {
    type Target = Ebpf;

    fn deref(&self) -> &Ebpf {
        self.object.as_ref().unwrap()
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Ebpf {
        self.object.as_mut().unwrap()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let (Some(mut object), Some((sizes, loaded))) = (self.object.take(), self.home.take())
        else {
            return;
        };
        // Nobody should have to look for what failed in what another test left behind.
        if thread::panicking() {
            return;
        }
        loaded.put_back(&mut object);
        let mut idle = IDLE.lock().unwrap();
        idle.entry(sizes).or_default().push((object, loaded));
    }
}
