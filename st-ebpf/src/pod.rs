//! [`aya::Pod`] for the map types.

use crate::{
    abi::{Ack, Early, Flow, Follow, Fragmented, Hold, Latest, Ports, Seen, Settings, Shift, Token},
    plan::{Connection, Plan},
};

// SAFETY: `repr(C)`, made of integers and arrays of them, without padding.
unsafe impl aya::Pod for Settings {}
// SAFETY: as above.
unsafe impl aya::Pod for Ports {}
// SAFETY: as above.
unsafe impl aya::Pod for Shift {}
// SAFETY: as above.
unsafe impl aya::Pod for Token {}
// SAFETY: as above.
unsafe impl aya::Pod for Ack {}
// SAFETY: as above.
unsafe impl aya::Pod for Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for Hold {}
unsafe impl aya::Pod for Seen {}
// SAFETY: as above.
unsafe impl aya::Pod for Latest {}
// SAFETY: as above.
unsafe impl aya::Pod for Fragmented {}
// SAFETY: as above.
unsafe impl aya::Pod for Follow {}
// SAFETY: as above.
unsafe impl aya::Pod for Early {}
// SAFETY: as above.
unsafe impl aya::Pod for Connection {}
// SAFETY: as above.
unsafe impl aya::Pod for Plan {}
