//! Matrix products.

mod integer;
mod pack;
mod patches;
mod product;
#[cfg(test)]
mod tests;
mod tile;

pub use pack::{Packing, pack_panels, pack_strips};
pub use product::{BoundFinish, prepare, region};
pub use tile::{ROWS_MAX, Tile, TileFinish, TileSet};
