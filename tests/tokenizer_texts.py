"""Texts that tokenizers are trained on and compared with: many scripts, hard to split."""

from __future__ import annotations

SENTENCES = (
    "The ferry leaves at half past seven, and the last one back is never on time.",
    "She couldn't find her keys; they'd been in the other coat all along!",
    "We've measured 3.14 metres of rope (give or take 5%) for $12.50.",
    "I'll say it's what you're told, he'd answered, but I'm not sure they've heard.",
    "Über den Dächern von Köln hängt schon früh am Morgen ein grauer Nebel.",
    "Straßenbahnfahrerinnen grüßen sich an jeder Haltestelle, auch bei Regen.",
    "Le garçon a mangé une crêpe à la gare, où l'été s'achève déjà.",
    "El niño preguntó: ¿dónde está la bañera? ¡Aquí mismo!",
    "Zażółć gęślą jaźń, powiedział wędrowiec znad Wisły.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Bugün hava çok güzel, İstanbul'da ışıl ışıl bir sabah.",
    "Вчера вечером мы долго гуляли по набережной и молчали.",
    "Η θάλασσα είναι ήρεμη το πρωί και φουρτουνιασμένη το βράδυ",
    "今天的天气很好，我们去公园散步吧。",
    "图书馆在学校的东边，走路五分钟就到。",
    "昨日、駅前の本屋で古い地図を買いました。",
    "カタカナとひらがなと漢字が、同じ文の中に並ぶ。",
    "오늘은 날씨가 좋아서 강가를 따라 오래 걸었다.",
    "ذهب الولد إلى السوق واشترى خبزًا وتفاحًا.",
    "השמש זורחת מעל ההרים, והציפורים שרות.",
    "नदी के किनारे एक पुराना पेड़ खड़ा है।",
    "เมื่อวานฝนตกหนักมากจนถนนหน้าบ้านน้ำท่วม",
    "Hôm qua trời mưa to, đường phố ngập nước.",
)

# What splitters stumble over.
AWKWARD = (
    "",
    " ",
    "  two   and    four spaces  ",
    "tab\tand\nnew\r\nlines\n\n",
    "a\u00a0no-break\u2003em\u3000ideographic\u2028line\u2029paragraph space",
    "bell\x07 null\x00 escape\x1b delete\x7f next\x85 soft\u00adhyphen",
    "zero\u200bwidth\u200djoined\u2060\ufeffmarks",
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467 flag \U0001f1e9\U0001f1ea"
    " thumb \U0001f44d\U0001f3fd keycap 3\ufe0f\u20e3",
    "e\u0301 is \u00e9, A\u030a is \u00c5, and \u1e9b\u0323 is odd",
    "ﬁne ﬂuﬀ, ＦＵＬＬ ｗｉｄｔｈ １２３, ½ ² ㎏",
    "Mw.-St., AWO-Mitarbeiter; 1,000.00 -- (x)[y]{z} <tag> a/b\\c @me #1 ^~`|_",
    "don't DON'T rock'n'roll 'quoted' ‘curly’ “double” it’s",
    "supercalifragilisticexpialidocious" * 2,
    "x" * 100,
    "x" * 101,
    "word" * 200,
    "unknown: ꙮ \U0001f9ff \U00010348 \ue000\ue001 ☃",
    "混ぜるmixed文字text漢字あa",
    "replacement \ufffd character",
    "12345 6 78 ٣٤٥ Ⅷ",
    "trailing newline\n",
    "\n\tleading",
    "...!!!???",
    "ŉ ǆ ŀ ß ẞ ſ İ ı",
)

TEXTS = SENTENCES + AWKWARD
