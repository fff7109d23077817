//! `Values`: what a context carries, keyed by type.
//!
//! A list from the nearest value outwards, shared by all the contexts derived below it. It never changes.

use std::any::{Any, TypeId};
use std::sync::Arc;

use crate::destructor::destroy;

#[derive(Clone)]
pub(super) struct Values(Option<Arc<Layer<dyn Any + Send + Sync>>>);

struct Layer<V: ?Sized> {
    key: TypeId,
    outer: Values,
    value: V,
}

impl Values {
    pub(super) const NONE: Self = Self(None);

    pub(super) fn with<T: Send + Sync + 'static>(&self, value: T) -> Self {
        Self(Some(Arc::new(Layer {
            key: TypeId::of::<T>(),
            outer: self.clone(),
            value,
        })))
    }

    pub(super) fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let mut values = self;
        while let Some(layer) = &values.0 {
            if layer.key == TypeId::of::<T>() {
                return layer.value.downcast_ref();
            }
            values = &layer.outer;
        }
        None
    }
}

impl Drop for Values {
    /// Frees the layers that only this one kept, one after the other instead of one inside the other.
    #[inline]
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut layer) = next {
            // Of several threads that drop the last owners at once none may be the only one here. Then the last of them
            // drops the outer layers inside of this one, and `destroy` bounds how deep that can go.
            next = Arc::get_mut(&mut layer).and_then(|layer| layer.outer.0.take());
            destroy(layer);
        }
    }
}
