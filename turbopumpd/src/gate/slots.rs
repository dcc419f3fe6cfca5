//! Numbered places whose numbers are safe to keep: one that was vacated and taken again has
//! another generation, so an event meant for the old tenant does not reach the new one.

/// Names a tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// A growable table of tenants.
pub(super) struct Slots<T> {
    places: Vec<(u32, Option<T>)>,
    vacant: Vec<u32>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), vacant: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// The id that the next `insert` will give out.
    pub(super) fn next_id(&self) -> SlotId {
        match self.vacant.last() {
            Some(&index) => SlotId { index, generation: self.places[index as usize].0 },
            None => SlotId { index: self.places.len() as u32, generation: 0 },
        }
    }

    pub(super) fn insert(&mut self, tenant: T) -> SlotId {
        let id = self.next_id();
        match self.vacant.pop() {
            Some(index) => self.places[index as usize].1 = Some(tenant),
            None => self.places.push((0, Some(tenant))),
        }
        id
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        match self.places.get_mut(id.index as usize) {
            Some((generation, tenant)) if *generation == id.generation => tenant.as_mut(),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, id: SlotId) -> Option<T> {
        let (generation, tenant) = self.places.get_mut(id.index as usize)?;
        if *generation != id.generation || tenant.is_none() {
            return None;
        }
        *generation = (*generation + 1) & GENERATION_MASK;
        self.vacant.push(id.index);
        tenant.take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SlotId, &T)> {
        self.places.iter().enumerate().filter_map(|(index, (generation, tenant))| {
            let id = SlotId { index: index as u32, generation: *generation };
            tenant.as_ref().map(|t| (id, t))
        })
    }
}

/// Generations are packed into an event token beside the index and the kind.
pub(super) const GENERATION_MASK: u32 = 0x3fff_ffff;
