//! Which statement runs, and what it assigns to a column: something of its own, or something that may come from the row.
//!
//! A trigger is given the row before and after an update, and not how one came from the other. That is in the plan of the
//! statement, which a hook of the executor keeps while the statement runs.

use std::cell::{Cell, RefCell};

use pgrx::prelude::*;
use pgrx::{PgList, pg_sys};

/// Listens for statements. Called once, when the library is loaded.
pub(crate) fn register() {
    // SAFETY: called from _PG_init, in the only thread; the hook that was there before is kept and called by ours.
    unsafe {
        PREVIOUS = pg_sys::ExecutorRun_hook;
        pg_sys::ExecutorRun_hook = Some(on_run);
    }
}

/// The columns (counted from 1) that the innermost running statement assigns, if it is an UPDATE of `view` that scans `table`
/// alone, and chooses its rows, and makes what it assigns, from nothing but constants and the columns `from` of the table.
/// `None` for any other statement, and whatever cannot be told.
pub(crate) fn assigned(
    view: pg_sys::Oid,
    table: pg_sys::Oid,
    from: &[pg_sys::AttrNumber],
) -> Option<Vec<i32>> {
    let statement = RUNNING.with_borrow(|running| running.last().copied())?;
    // SAFETY: the statement runs, so its description and its plan exist until it ends, and no one changes them.
    unsafe { look(statement, view, table, from) }
}

/// The number of the outermost running statement, which no other statement of this process has had; `None` where none runs.
pub(crate) fn statement() -> Option<u64> {
    RUNNING.with_borrow(|running| (!running.is_empty()).then(|| STATEMENTS.get()))
}

thread_local! {
    /// How many statements have begun that were not inside of others.
    static STATEMENTS: Cell<u64> = const { Cell::new(0) };
    /// The statements that run, innermost last.
    static RUNNING: RefCell<Vec<*mut pg_sys::QueryDesc>> = const { RefCell::new(Vec::new()) };
}

static mut PREVIOUS: pg_sys::ExecutorRun_hook_type = None;

/// Keeps a statement in the list until it ends, in whichever way.
struct Run;

impl Run {
    fn begin(statement: *mut pg_sys::QueryDesc) -> Self {
        RUNNING.with_borrow_mut(|running| {
            if running.is_empty() {
                STATEMENTS.set(STATEMENTS.get().wrapping_add(1));
            }
            running.push(statement);
        });
        Self
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(Vec::pop);
    }
}

#[cfg(not(feature = "pg18"))]
#[pg_guard]
unsafe extern "C-unwind" fn on_run(
    statement: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    execute_once: bool,
) {
    let _run = Run::begin(statement);
    // SAFETY: the arguments are passed on unchanged. The guard turns an error of the other library into a panic: it must not
    // jump over this frame, which ends the run.
    unsafe {
        match PREVIOUS {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| {
                previous(statement, direction, count, execute_once);
            }),
            None => pg_sys::standard_ExecutorRun(statement, direction, count, execute_once),
        }
    }
}

#[cfg(feature = "pg18")]
#[pg_guard]
unsafe extern "C-unwind" fn on_run(
    statement: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
) {
    let _run = Run::begin(statement);
    // SAFETY: the arguments are passed on unchanged. The guard turns an error of the other library into a panic: it must not
    // jump over this frame, which ends the run.
    unsafe {
        match PREVIOUS {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| previous(statement, direction, count)),
            None => pg_sys::standard_ExecutorRun(statement, direction, count),
        }
    }
}

/// # Safety
/// `statement` runs.
unsafe fn look(
    statement: *mut pg_sys::QueryDesc,
    view: pg_sys::Oid,
    table: pg_sys::Oid,
    from: &[pg_sys::AttrNumber],
) -> Option<Vec<i32>> {
    use pg_sys::NodeTag as T;
    // SAFETY: the nodes of a finished plan, each cast after its tag was looked at.
    unsafe {
        let plan = (*statement).plannedstmt.as_ref()?;
        // What a subquery reads may be the row as well.
        if !plan.subplans.is_null() {
            return None;
        }
        let update = node::<pg_sys::ModifyTable>(plan.planTree.cast(), T::T_ModifyTable)?;
        let [target] = integers(update.resultRelations)[..] else { return None };
        if update.operation != pg_sys::CmdType::CMD_UPDATE || relation(plan, target) != Some(view) {
            return None;
        }
        let scan = update.plan.lefttree.as_ref()?;
        let (scanned, conditions) = match scan.type_ {
            T::T_SeqScan => (scan_of(scan), vec![scan.qual]),
            T::T_IndexScan => {
                let index =
                    node::<pg_sys::IndexScan>(core::ptr::from_ref(scan).cast_mut().cast(), T::T_IndexScan)?;
                (scan_of(scan), vec![scan.qual, index.indexqualorig])
            }
            T::T_BitmapHeapScan => {
                let bitmap = node::<pg_sys::BitmapHeapScan>(
                    core::ptr::from_ref(scan).cast_mut().cast(),
                    T::T_BitmapHeapScan,
                )?;
                (scan_of(scan), vec![scan.qual, bitmap.bitmapqualorig])
            }
            _ => return None,
        };
        if relation(plan, i32::try_from(scanned).ok()?) != Some(table) {
            return None;
        }
        // Another version of the row has the same columns of that kind, so it would have been chosen as well, and what is
        // made of them is the same.
        let columns = integers(list_at(update.updateColnosLists, 0)?.cast());
        for place in 0..columns.len() {
            let entry = list_at(scan.targetlist, place)?;
            let entry = node::<pg_sys::TargetEntry>(entry.cast(), T::T_TargetEntry)?;
            if entry.resjunk || !allowed(entry.expr.cast(), scanned, from) {
                return None;
            }
        }
        conditions.iter().all(|list| depends_on(*list, scanned, from)).then_some(columns)
    }
}

/// # Safety
/// A scan of one relation, of any kind.
unsafe fn scan_of(plan: &pg_sys::Plan) -> pg_sys::Index {
    // SAFETY: see above: all of them begin with a `Scan`.
    unsafe { (*core::ptr::from_ref(plan).cast::<pg_sys::Scan>()).scanrelid }
}

/// Whether all conditions of a list are made of these columns.
///
/// # Safety
/// A list of expressions of a finished plan, or null.
unsafe fn depends_on(
    list: *mut pg_sys::List,
    scanned: pg_sys::Index,
    columns: &[pg_sys::AttrNumber],
) -> bool {
    // SAFETY: see above.
    unsafe {
        PgList::<pg_sys::Node>::from_pg(list).iter_ptr().all(|condition| allowed(condition, scanned, columns))
    }
}

/// Whether an expression is made of nothing but constants, parameters, these columns of the scanned table, and functions of
/// Postgres itself that read no table. What is not known here is not allowed.
///
/// # Safety
/// An expression of a finished plan, or null.
unsafe fn allowed(
    expression: *mut pg_sys::Node,
    scanned: pg_sys::Index,
    columns: &[pg_sys::AttrNumber],
) -> bool {
    use pg_sys::NodeTag as T;
    let all = |list| {
        // SAFETY: a list of expressions inside this one.
        unsafe { depends_on(list, scanned, columns) }
    };
    let inner = |node: *mut pg_sys::Expr| {
        // SAFETY: an expression inside this one.
        unsafe { allowed(node.cast(), scanned, columns) }
    };
    // SAFETY: each node is cast after its tag was looked at.
    unsafe {
        if expression.is_null() {
            return true;
        }
        match (*expression).type_ {
            T::T_Const | T::T_SQLValueFunction => true,
            T::T_Param => (*expression.cast::<pg_sys::Param>()).paramkind == pg_sys::ParamKind::PARAM_EXTERN,
            T::T_Var => {
                let var = &*expression.cast::<pg_sys::Var>();
                u32::try_from(var.varno) == Ok(scanned) && columns.contains(&var.varattno)
            }
            T::T_RelabelType => inner((*expression.cast::<pg_sys::RelabelType>()).arg),
            T::T_CoerceViaIO => {
                let coercion = &*expression.cast::<pg_sys::CoerceViaIO>();
                (is_builtin(coercion.resulttype) || pg_sys::type_is_enum(coercion.resulttype))
                    && inner(coercion.arg)
            }
            T::T_FuncExpr => {
                let call = &*expression.cast::<pg_sys::FuncExpr>();
                reads_no_table(call.funcid) && all(call.args)
            }
            T::T_OpExpr | T::T_DistinctExpr => {
                let call = &*expression.cast::<pg_sys::OpExpr>();
                reads_no_table(call.opfuncid) && all(call.args)
            }
            T::T_ScalarArrayOpExpr => {
                let call = &*expression.cast::<pg_sys::ScalarArrayOpExpr>();
                reads_no_table(call.opfuncid) && all(call.args)
            }
            T::T_ArrayExpr => all((*expression.cast::<pg_sys::ArrayExpr>()).elements),
            T::T_BoolExpr => all((*expression.cast::<pg_sys::BoolExpr>()).args),
            T::T_NullTest => inner((*expression.cast::<pg_sys::NullTest>()).arg),
            _ => false,
        }
    }
}

/// Whether a function is one of Postgres itself and reads no table: those that make XML of tables are STABLE.
fn reads_no_table(function: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookups by oid.
    unsafe {
        is_builtin(function)
            && u8::try_from(pg_sys::func_volatile(function)) != Ok(pg_sys::PROVOLATILE_VOLATILE)
            && pg_sys::get_func_rettype(function) != pg_sys::XMLOID
    }
}

fn is_builtin(object: pg_sys::Oid) -> bool {
    object != pg_sys::InvalidOid && object.to_u32() < pg_sys::FirstNormalObjectId
}

/// The relation of an entry of the plan's range table, counted from 1.
///
/// # Safety
/// A finished plan.
unsafe fn relation(plan: &pg_sys::PlannedStmt, entry: i32) -> Option<pg_sys::Oid> {
    let place = usize::try_from(entry).ok()?.checked_sub(1)?;
    // SAFETY: see above.
    unsafe {
        let entry = list_at(plan.rtable, place)?;
        Some(node::<pg_sys::RangeTblEntry>(entry.cast(), pg_sys::NodeTag::T_RangeTblEntry)?.relid)
    }
}

/// # Safety
/// `pointer` is a node or null, and a node with that tag is a `T`.
unsafe fn node<'a, T>(pointer: *mut pg_sys::Node, tag: pg_sys::NodeTag) -> Option<&'a T> {
    // SAFETY: see above.
    unsafe { (!pointer.is_null() && (*pointer).type_ == tag).then(|| &*pointer.cast::<T>()) }
}

/// # Safety
/// A list of pointers, or null.
unsafe fn list_at(list: *mut pg_sys::List, place: usize) -> Option<*mut core::ffi::c_void> {
    // SAFETY: see above; a list has `length` elements.
    unsafe {
        let length = usize::try_from(list.as_ref()?.length).ok()?;
        (place < length).then(|| (*(*list).elements.add(place)).ptr_value)
    }
}

/// # Safety
/// A list of integers, or null.
unsafe fn integers(list: *mut pg_sys::List) -> Vec<i32> {
    // SAFETY: see above; a list has `length` elements.
    unsafe {
        let Some(length) = list.as_ref().and_then(|list| usize::try_from(list.length).ok()) else {
            return Vec::new();
        };
        (0..length).map(|place| (*(*list).elements.add(place)).int_value).collect()
    }
}
