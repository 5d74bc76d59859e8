//! A plugin's functions: looked up, and their types compared with ours, once, when it is opened. The generated bindings do both
//! for all functions in every instance, and each type is a tree of records; a call needs one function.

use std::marker::PhantomData;

use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower, TypedFunc,
};

use super::limits::Meter;

/// Where the functions of a component's interface are looked up, and an instance in which their types are compared.
pub(super) struct Exports<'c> {
    code: &'c Component,
    interface: ComponentExportIndex,
    instance: Instance,
}

/// Where a function is, whose type was compared: the types of a component never change.
pub(super) struct Function<Params, R> {
    index: ComponentExportIndex,
    /// Covariant, so that a call may lend what lives no longer than it.
    of: PhantomData<(Params, R)>,
}

// === impl Exports ===

impl<'c> Exports<'c> {
    /// Those of `interface` in `code`, of which there is an `instance`.
    ///
    /// # Errors
    ///
    /// When there is no such interface.
    pub(super) fn of(
        code: &'c Component,
        interface: &str,
        instance: Instance,
    ) -> wasmtime::Result<Self> {
        let found = code.get_export_index(None, interface);
        Ok(Self {
            code,
            interface: found.ok_or_else(|| missing(interface))?,
            instance,
        })
    }

    /// The function of this name.
    ///
    /// # Errors
    ///
    /// When there is none, or one that takes or returns something else.
    pub(super) fn function<Params, R>(
        &self,
        store: &mut Store<Meter>,
        name: &str,
    ) -> wasmtime::Result<Function<Params, R>>
    where
        Params: ComponentNamedList + Lower,
        (R,): ComponentNamedList + Lift,
    {
        let index = self.code.get_export_index(Some(&self.interface), name);
        let index = index.ok_or_else(|| missing(name))?;
        self.instance
            .get_typed_func::<Params, (R,)>(store, &index)?;
        Ok(Function {
            index,
            of: PhantomData,
        })
    }
}

fn missing(export: &str) -> wasmtime::Error {
    wasmtime::format_err!("no export `{export}`")
}

// === impl Function ===

impl<Params, R> Function<Params, R>
where
    Params: ComponentNamedList + Lower + Send + Sync,
    R: Send + Sync + 'static,
    (R,): ComponentNamedList + Lift,
{
    /// Calls it in an instance of the component that it was found in.
    ///
    /// # Errors
    ///
    /// What stopped it; and when the instance is of another component.
    pub(super) async fn call(
        &self,
        store: &mut Store<Meter>,
        instance: &Instance,
        params: Params,
    ) -> wasmtime::Result<R> {
        let function = instance.get_func(&mut *store, self.index);
        let function = function.ok_or_else(|| wasmtime::format_err!("of another component"))?;
        // SAFETY: `Exports::function`, which alone makes a `Function`, compared the type at this index with these parameters
        // and this result, but for how long what they borrow lives; an index is of one component, and finds nothing in
        // instances of others.
        #[expect(
            unsafe_code,
            reason = "comparing the types again took a thirtieth of a refresh"
        )]
        let function: TypedFunc<Params, (R,)> = unsafe { TypedFunc::new_unchecked(function) };
        let (answer,) = function.call_async(store, params).await?;
        Ok(answer)
    }
}
