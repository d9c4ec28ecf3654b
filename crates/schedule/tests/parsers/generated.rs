//! Expressions, right and wrong ones, the same each time.

const EXPRESSIONS: usize = 100_000;
const MONTHS: [&str; 12] = ["jan", "FEB", "mar", "apr", "May", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "MON", "tue", "wed", "Thu", "fri", "sat"];
const WORDS: [&str; 12] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
    "@every 7m31s",
    "@every 36h",
    "@every 1",
    "@reboot",
    "@date 2026-12-24 18:00:00",
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one_of(&mut self, texts: &[&str]) -> String {
        texts[self.below(texts.len() as u64) as usize].to_owned()
    }

    fn one(&mut self, least: u64, most: u64, names: &[&str]) -> String {
        // Now and then one that is out of range.
        let number = least + self.below(most - least + 1) + u64::from(self.below(60) == 0) * (most + 1);
        match names.get((number - least) as usize) {
            Some(name) if self.below(4) == 0 => (*name).to_owned(),
            _ => number.to_string(),
        }
    }

    fn field(&mut self, least: u64, most: u64, names: &[&str]) -> String {
        let one = |random: &mut Self| random.one(least, most, names);
        match self.below(13) {
            0..=3 => "*".to_owned(),
            4 => "?".to_owned(),
            5 => format!("*/{}", 1 + self.below(most)),
            6 => format!("{}/{}", one(self), 1 + self.below(most)),
            7 => format!("{}-{}", one(self), one(self)),
            8 => format!("{},{}", one(self), one(self)),
            9 => format!("*/{},{}", 2 + self.below(most), one(self)),
            10 => {
                let (a, b) = (least + self.below(most - least + 1), least + self.below(most - least + 1));
                format!("{}-{}/{}", a.min(b), a.max(b), 1 + self.below(7))
            }
            11 if self.below(20) == 0 => {
                self.one_of(&["L", "15W", "5#2", "1,,2", "*/0", "+1", "1-", "/5", "**", "2-3-4"])
            }
            _ => one(self),
        }
    }

    fn expression(&mut self) -> String {
        if self.below(100) == 0 {
            return self.one_of(&WORDS);
        }
        let mut fields = vec![
            self.field(0, 59, &[]),
            self.field(0, 23, &[]),
            self.field(1, 31, &[]),
            self.field(1, 12, &MONTHS),
            self.field(0, 7, &DAYS),
        ];
        if self.below(2) == 0 {
            fields.insert(0, self.field(0, 59, &[]));
        }
        fields.join(" ")
    }
}

pub(crate) fn expressions() -> Vec<String> {
    let mut random = Random(0x5eed_cafe);
    (0..EXPRESSIONS).map(|_| random.expression()).collect()
}
