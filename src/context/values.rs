//! `Values`: what a context carries, keyed by type.
//!
//! A list from the nearest value outwards, shared by all the contexts derived below it. It never changes.

use std::any::{Any, TypeId};
use std::sync::Arc;

use crate::destructor::destroy;

#[derive(Clone)]
pub(super) struct Values(Option<Arc<Layer>>);

struct Layer {
    key: TypeId,
    value: Option<Box<dyn Any + Send + Sync>>,
    outer: Values,
}

impl Values {
    pub(super) const NONE: Self = Self(None);

    pub(super) fn with<T: Send + Sync + 'static>(&self, value: T) -> Self {
        Self(Some(Arc::new(Layer {
            key: TypeId::of::<T>(),
            value: Some(Box::new(value)),
            outer: self.clone(),
        })))
    }

    pub(super) fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let mut values = self;
        while let Some(layer) = &values.0 {
            if layer.key == TypeId::of::<T>() {
                return layer.value.as_deref()?.downcast_ref();
            }
            values = &layer.outer;
        }
        None
    }
}

impl Drop for Layer {
    /// Frees the outer layers that only this one kept, one after the other instead of one inside the other.
    fn drop(&mut self) {
        destroy(self.value.take());
        let mut next = self.outer.0.take();
        while let Some(layer) = next {
            // Of several threads that drop the last owners at once, `into_inner` gives the layer to exactly one.
            next = Arc::into_inner(layer).and_then(|mut layer| {
                destroy(layer.value.take());
                layer.outer.0.take()
            });
        }
    }
}
