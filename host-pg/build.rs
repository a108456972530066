//! Finds the default crypto module, which the library carries.

#[path = "../modules/builtin.rs"]
mod builtin;

fn main() {
    println!("cargo:rerun-if-changed=sql");
    builtin::find();
}
