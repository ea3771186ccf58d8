//! The walk over a model's protobuf that comes before anything is decoded: it proves the wire format well formed and
//! the decoded size bounded, in constant memory and without recursion.

use crate::error::{Result, ensure, fail};
use crate::limits::{FIELDS_MAX, MESSAGE_DEPTH_MAX, NODES_MAX, SUBGRAPH_DEPTH_MAX};

/// What an entry of a repeated field may take once decoded, a vector's spare room and growth included. The largest
/// entries are dimensions and string pairs (48 bytes).
const ENTRY_BYTES: usize = 3 * 48;
/// What an otherwise empty message may take: small vectors start with room for four entries.
const MESSAGE_BYTES: usize = 768;

/// The messages that are decoded, and so walked into.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Function,
    ValueInfo,
    Type,
    TensorType,
    TensorShape,
    Dimension,
    OperatorSet,
    StringEntry,
}

impl Message {
    /// Decoded as part of its parent.
    fn is_inline(self) -> bool {
        use Message::*;
        matches!(self, Type | TensorType | TensorShape | Dimension | OperatorSet | StringEntry)
    }

    /// Held as long as its parent; the others are decoded one at a time.
    fn is_kept(self) -> bool {
        self.is_inline() || self == Message::Function
    }
}

/// What a field holds.
enum Content {
    /// A message that may stand there once.
    One(Message),
    /// One of several messages.
    Many(Message),
    /// Text, copied when decoded.
    Text,
    /// One of several byte strings, which stay slices of the file.
    Slice,
    /// One or, packed, several numbers of so many bytes.
    Numbers(usize),
    /// Nothing that costs memory: ignored, a single number, or a single slice of the file.
    Free,
}

/// The fields of `proto.rs`.
fn content(message: Message, number: u64) -> Content {
    use Content::*;
    match (message, number) {
        (Message::Model, 7) => One(Message::Graph),
        (Message::Model, 8) | (Message::Function, 9) => Many(Message::OperatorSet),
        (Message::Model, 25) => Many(Message::Function),
        (Message::Graph, 1) | (Message::Function, 7) => Many(Message::Node),
        (Message::Graph, 5) => Many(Message::Tensor),
        (Message::Graph, 11 | 12) => Many(Message::ValueInfo),
        (Message::Graph, 15) | (Message::Attribute, 9) => Slice,
        (Message::Function, 11) | (Message::Node, 5) => Many(Message::Attribute),
        (Message::Function, 1 | 4 | 5 | 10 | 13) | (Message::Node, 1..=4 | 7 | 8) => Text,
        (Message::Attribute, 5) => One(Message::Tensor),
        (Message::Attribute, 6) => One(Message::Graph),
        (Message::Attribute, 7) | (Message::Tensor, 4 | 5) => Numbers(4),
        (Message::Attribute, 8) | (Message::Tensor, 1 | 7 | 10) => Numbers(8),
        (Message::Attribute, 1 | 21) | (Message::Tensor, 8) | (Message::ValueInfo, 1) => Text,
        (Message::Tensor, 13) => Many(Message::StringEntry),
        (Message::ValueInfo, 2) => One(Message::Type),
        (Message::Type, 1) => One(Message::TensorType),
        (Message::TensorType, 2) => One(Message::TensorShape),
        (Message::TensorShape, 1) => Many(Message::Dimension),
        (Message::Dimension | Message::OperatorSet | Message::StringEntry, 1 | 2) => Text,
        _ => Free,
    }
}

/// One field as it stands on the wire.
struct Field<'a> {
    number: u64,
    /// The payload of a length-delimited field.
    payload: Option<&'a [u8]>,
}

/// A cursor over protobuf's wire format.
struct Wire<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Wire<'a> {
    fn malformed(&self, what: &str) -> crate::error::Error {
        fail!(Malformed, "not a well-formed ONNX model: {what} at byte {}", self.position)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in 0..10 {
            let Some(&byte) = self.bytes.get(self.position) else {
                return Err(self.malformed("cut off inside a number"));
            };
            if shift == 9 && byte > 1 {
                return Err(self.malformed("a number of more than 64 bits"));
            }
            self.position += 1;
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number of more than ten bytes"))
    }

    /// The next field of the message that ends at `end`. The cursor of a length-delimited field stops at its payload.
    fn field(&mut self, end: usize) -> Result<Field<'a>> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || tag > u64::from(u32::MAX) {
            return Err(self.malformed("a field number out of range"));
        }
        let skipped = match tag & 7 {
            0 => {
                self.varint()?;
                0
            }
            1 => 8,
            2 => {
                let length = self.varint()?;
                if self.position > end || length > (end - self.position) as u64 {
                    return Err(self.malformed("a field longer than what encloses it"));
                }
                let payload = &self.bytes[self.position..self.position + length as usize];
                return Ok(Field { number, payload: Some(payload) });
            }
            5 => 4,
            3 | 4 => return Err(self.malformed("a group, which ONNX does not have,")),
            _ => return Err(self.malformed("an unknown wire type")),
        };
        if self.position > end || skipped > end - self.position {
            return Err(self.malformed("a field longer than what encloses it"));
        }
        self.position += skipped;
        Ok(Field { number, payload: None })
    }
}

/// A message being walked.
struct Frame {
    message: Message,
    end: usize,
    /// Bytes that the message takes once decoded.
    own: usize,
    /// Bytes that the largest of the messages decoded one at a time takes.
    largest: usize,
    /// Bit per field that may stand once and has been seen.
    seen: u64,
}

impl Frame {
    fn new(message: Message, end: usize) -> Self {
        let own = if message.is_inline() { 0 } else { MESSAGE_BYTES };
        Frame { message, end, own, largest: 0, seen: 0 }
    }
}

/// Walks a model file and gives a bound for the memory that decoding it takes at any one time.
pub fn scan(bytes: &[u8]) -> Result<usize> {
    let mut wire = Wire { bytes, position: 0 };
    let mut frames = vec![Frame::new(Message::Model, bytes.len())];
    let (mut fields, mut nodes, mut subgraphs) = (0usize, 0usize, 0usize);
    loop {
        let depth = frames.len();
        let frame = frames.last_mut().expect("the model's frame is returned from");
        if wire.position == frame.end {
            let done = frames.pop().expect("just seen");
            let total = done.own.saturating_add(done.largest);
            subgraphs -= usize::from(done.message == Message::Graph);
            match frames.last_mut() {
                None => return Ok(total),
                Some(parent) if done.message.is_kept() => parent.own = parent.own.saturating_add(total),
                Some(parent) => parent.largest = parent.largest.max(total),
            }
            continue;
        }
        fields += 1;
        ensure!(fields <= FIELDS_MAX, TooLarge, "the model file has more than {FIELDS_MAX} protobuf fields");
        let field = wire.field(frame.end)?;
        let Some(child) = account(frame, &field, &wire)? else {
            wire.position += field.payload.map_or(0, <[u8]>::len);
            continue;
        };
        nodes += usize::from(child == Message::Node);
        ensure!(nodes <= NODES_MAX, TooLarge, "the model has more than {NODES_MAX} nodes");
        subgraphs += usize::from(child == Message::Graph);
        // The first of them is the main graph.
        ensure!(
            subgraphs <= SUBGRAPH_DEPTH_MAX + 1,
            TooLarge,
            "the model nests subgraphs more than {SUBGRAPH_DEPTH_MAX} deep"
        );
        ensure!(depth < MESSAGE_DEPTH_MAX, TooLarge, "the model nests messages more than {MESSAGE_DEPTH_MAX} deep");
        let end = wire.position + field.payload.map_or(0, <[u8]>::len);
        frames.push(Frame::new(child, end));
    }
}

/// Adds a field's cost to the message that holds it, and says which message to walk into.
fn account(frame: &mut Frame, field: &Field<'_>, wire: &Wire<'_>) -> Result<Option<Message>> {
    let length = field.payload.map_or(0, <[u8]>::len);
    let (cost, child) = match content(frame.message, field.number) {
        Content::Free => (0, None),
        Content::Slice => (ENTRY_BYTES, None),
        Content::Text => (ENTRY_BYTES.saturating_add(length), None),
        // A vector of numbers has at most twice the room it needs.
        Content::Numbers(bytes) => {
            let count = field.payload.map_or(1, |payload| packed_count_max(payload, frame.message, field.number));
            (count.saturating_mul(2 * bytes), None)
        }
        Content::One(message) | Content::Many(message) if field.payload.is_none() => {
            return Err(wire.malformed(&format!("a number where a {message:?} should be")));
        }
        Content::One(message) => {
            let bit = 1u64 << field.number;
            if frame.seen & bit != 0 {
                return Err(wire.malformed(&format!("a second {message:?} where there can be one")));
            }
            frame.seen |= bit;
            (0, Some(message))
        }
        Content::Many(message) => (ENTRY_BYTES, Some(message)),
    };
    frame.own = frame.own.saturating_add(cost);
    Ok(child)
}

/// How many numbers a packed field can hold: floats are four bytes each, other numbers end with a byte below 128.
fn packed_count_max(payload: &[u8], message: Message, number: u64) -> usize {
    match (message, number) {
        (Message::Tensor, 4) | (Message::Attribute, 7) => payload.len() / 4,
        (Message::Tensor, 10) => payload.len() / 8,
        _ => payload.iter().filter(|&&byte| byte < 0x80).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    fn nested(field: u8, inner: &[u8]) -> Vec<u8> {
        let mut out = vec![field << 3 | 2];
        let mut length = inner.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(inner);
        out
    }

    fn refusal(bytes: &[u8]) -> (Status, String) {
        let error = scan(bytes).unwrap_err();
        (error.status, error.message)
    }

    #[test]
    fn bad_wire_format_is_malformed() {
        let cases: [(&[u8], &str); 9] = [
            (&[0x08], "cut off inside a number"),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], "more than 64 bits"),
            (&[0x00], "field number out of range"),
            (&[0x3b, 0x3c], "a group"),
            (&[0x3c], "a group"),
            (&[0x3e], "unknown wire type"),
            (&[0x3a, 0x05, 0x00], "longer than what encloses it"),
            (&[0x09, 0, 0, 0], "longer than what encloses it"),
            (&[0x3a, 0x02, 0x0a, 0x01], "longer than what encloses it"),
        ];
        for (bytes, expected) in cases {
            let (status, message) = refusal(bytes);
            assert_eq!(status, Status::Malformed, "{bytes:x?}");
            assert!(message.contains(expected), "{bytes:x?}: {message}");
        }
    }

    #[test]
    fn a_number_must_not_run_past_the_message_it_is_in() {
        // A graph of one byte, which begins a number that ends outside.
        assert_eq!(refusal(&[0x3a, 0x02, 0x08, 0x81, 0x01]).0, Status::Malformed);
    }

    #[test]
    fn a_second_graph_is_malformed() {
        assert!(refusal(&[0x3a, 0, 0x3a, 0]).1.contains("a second Graph"));
        assert!(refusal(&[0x38, 0]).1.contains("a number where a Graph should be"));
    }

    #[test]
    fn nodes_and_subgraphs_are_counted() {
        let nodes = nested(7, &[0x0a, 0].repeat(NODES_MAX + 1));
        assert_eq!(refusal(&nodes).0, Status::TooLarge);
        let subgraphs =
            |depth| (0..depth).fold(Vec::new(), |inner: Vec<u8>, _| nested(1, &nested(5, &nested(6, &inner))));
        assert!(scan(&nested(7, &subgraphs(SUBGRAPH_DEPTH_MAX))).is_ok());
        assert!(refusal(&nested(7, &subgraphs(SUBGRAPH_DEPTH_MAX + 1))).1.contains("subgraphs"));
        assert!(refusal(&nested(7, &subgraphs(5000))).1.contains("subgraphs"));
    }

    #[test]
    fn the_bound_grows_with_entries_but_not_with_weights() {
        let weights = nested(7, &nested(5, &nested(9, &vec![0; 1 << 20])));
        assert!(scan(&weights).unwrap() < 1 << 12);
        let attributes = nested(7, &nested(1, &[0x2a, 0].repeat(1_000_000)));
        assert!(scan(&attributes).unwrap() > 1_000_000 * 64);
        let packed = nested(7, &nested(5, &nested(7, &vec![0; 1 << 20])));
        assert!(scan(&packed).unwrap() >= 16 << 20);
    }
}
