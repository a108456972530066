//! Finds the default crypto module, which the command carries.

#[path = "../modules/builtin.rs"]
mod builtin;

fn main() {
    builtin::find();
}
