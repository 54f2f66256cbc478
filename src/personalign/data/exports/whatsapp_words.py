"""What WhatsApp itself writes into a chat: in place of media and of messages, behind messages, and of a group.

Known in English, German, Spanish, French, Italian, Portuguese, Dutch and Chinese.
"""

import re

# Marks that tell in which direction to write; WhatsApp puts the first before what it says itself on iOS.
OWN_WORDS = "\u200e"
DIRECTIONS = "\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"
_MARKS = re.compile(f"[{DIRECTIONS}]")

_MEDIA = re.compile(
    r"<[^<>]*(?:omitted|attached|weggelassen|ausgeschlossen|omis|omess[oi]|omitid[oa]|ocult[oa]|weggelaten|省略|忽略|附件)[^<>]*>"
    r"|(?:image|video|audio|sticker|gif|document|contact card|video note|voice message) omitted"
    r"|(?:图像|图片|圖片|影像|视频|視頻|影片|音频|音訊|贴图|貼圖|文档|文件|GIF|联系人名片)\s?已?(?:省略|忽略|略去)"
    r"|\S.*\s?[(（](?:file attached|Datei angehängt|archivo adjunto|fichier joint|file allegato|arquivo anexado"
    r"|bestand bijgevoegd|文件附件|附件)[)）]"
    r"|null",
    re.IGNORECASE,
)
# People write some of these, too, but not behind the mark.
_MARKED_MEDIA = re.compile(
    r"<[^<>]+>"
    r"|(?:bild|video|videonachricht|audio|sticker|gif|dokument|kontaktkarte) (?:weg|aus)gelassen"
    r"|(?:imagen|v[ií]deo|nota de v[ií]deo|audio|sticker|gif|documento|tarjeta de contacto) omitid[oa]"
    r"|(?:image|vidéo|note vidéo|audio|sticker|gif|document|fiche contact|carte de contact)"
    r" (?:absente?|omise?|manquante?|retiré)"
    r"|(?:immagine|video|videomessaggio|audio|sticker|gif|documento|scheda contatto) (?:omess|esclus|non inclus)[oa]"
    r"|(?:imagem|v[ií]deo|mensagem de vídeo|áudio|figurinha|gif|documento|cartão do contato) (?:omitid|ocultad)[oa]"
    r"|(?:afbeelding|video|videobericht|audio|sticker|gif|document|contactkaart|visitekaartje) weggelaten",
    re.IGNORECASE,
)
# In a language that is not known here: words alone, which no number is.
_FEW_WORDS = re.compile(r"[^\W\d_]+(?:\s[^\W\d_]+){0,3}\.?")
# Who writes these writes the mark, too, before words from left to right.
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")

_DELETED = re.compile(
    r"(?:this message was deleted(?: by (?:an? |the )?(?:group )?admin\b.*)?"
    r"|you deleted this message(?: as (?:an? )?(?:group )?admin)?"
    r"|diese nachricht wurde (?:(?:vom|von|durch) .*admin\b.* )?gelöscht"
    r"|du hast diese nachricht (?:als .*admin )?gelöscht"
    r"|se eliminó este mensaje|eliminaste este mensaje(?: como admin)?"
    r"|(?:(?:el|la|una?) )?admin.* eliminó este mensaje|este mensaje fue eliminado(?: por .*admin.*)?"
    r"|ce message a été supprimé(?: par .*admin.*)?|vous avez supprimé ce message(?: en tant qu.admin.*)?"
    r"|(?:l.|une? )admin.* a supprimé ce message"
    r"|questo messaggio è stato eliminato(?: da.* ?(?:admin|amministrat).*)?"
    r"|hai eliminato questo messaggio(?: come (?:admin|amministrat).*)?"
    r"|(?:esta mensagem foi|mensagem) (?:apagada|eliminada)(?: p(?:or|elo|ela) .*admin.*)?"
    r"|(?:você )?apagou esta mensagem(?: como admin.*)?"
    r"|dit bericht is (?:door .*beheerder.* )?verwijderd(?: door .*beheerder.*)?"
    r"|(?:je|u) hebt dit bericht (?:als beheerder )?verwijderd"
    r"|(?:此|这条|這則)(?:消息|訊息)已(?:(?:被|由)?(?:群组|群組)?(?:管理员|管理員).*|被)?(?:删除|刪除)"
    r"|(?:群组|群組)?(?:管理员|管理員).*(?:删除|刪除)了?此(?:消息|訊息)"
    r"|(?:你|您)?已?(?:删除|刪除)了?此(?:消息|訊息))[.。]?",
    re.IGNORECASE,
)
# In place of a message that has not come: "Waiting for this message. This may take a while."
_WAITING = re.compile(
    r"(?:waiting for this message"
    r"|(?:warte|es wird|wir warten) auf diese nachricht(?: gewartet)?|auf diese nachricht wird gewartet"
    r"|esperando (?:este|el) mensaje"
    r"|en attente (?:de ce|du) message"
    r"|in attesa (?:di questo|del) messaggio"
    r"|(?:aguardando|à espera d)(?: ?esta)? mensagem"
    r"|(?:wachten|wacht|er wordt gewacht) op dit bericht"
    r"|(?:正在)?等待此(?:消息|訊息))[.。]\s?[^.。\n]{1,80}[.。]?",
    re.IGNORECASE,
)
_EDITED = re.compile(
    rf"[\s{DIRECTIONS}]*<(?:this message was edited"
    r"|diese nachricht wurde bearbeitet"
    r"|se editó este mensaje|mensaje editado"
    r"|ce message a été modifié"
    r"|(?:questo messaggio è stato|messaggio) modificato"
    r"|(?:esta mensagem foi|mensagem) editada"
    r"|dit bericht is bewerkt"
    rf"|(?:此|这条|這則)(?:消息|訊息)已(?:被)?(?:编辑|編輯))[.。]?>[\s{DIRECTIONS}]*\Z",
    re.IGNORECASE,
)

_GROUP = re.compile(
    r"\b(?:group|subject|Betreff|Gruppe|Gruppenname|Gruppennamen|grupo|asunto|assunto|groupe|objet|sujet|gruppo|oggetto"
    r"|groep|groepsnaam|onderwerp)\b|群组|群組|群名|主题|主題|主旨",
    re.IGNORECASE,
)
_QUOTED = re.compile('"[^"]*"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|『[^』]*』')
_QUOTES = re.compile('["“„«「『]')


def unmarked(text: str) -> str:
    return _MARKS.sub("", text)


def marks_of(text: str) -> int:
    """How many marks of direction the text has."""
    return len(_MARKS.findall(text))


def stands_for_media(text: str, *, marked: bool) -> bool:
    """Whether a line, or what stands in it behind a mark, is there for a picture, a document or the like."""
    return bool(_MEDIA.fullmatch(text) or (marked and _MARKED_MEDIA.fullmatch(text)))


def ends_in_own_words(written: str, behind: str) -> bool:
    """Whether what stands behind the last mark of a message is WhatsApp's, in a language that is not known here."""
    return _FEW_WORDS.fullmatch(behind) is not None and not _RIGHT_TO_LEFT.search(written)


def was_deleted(text: str) -> bool:
    return _DELETED.fullmatch(text) is not None


def is_awaited(text: str) -> bool:
    """Whether the message itself never came."""
    return _WAITING.fullmatch(text) is not None


def without_edit(text: str) -> str:
    """The text without the words at its end that say that it was edited."""
    return _EDITED.sub("", text)


def breaks_off_in_a_name(text: str) -> bool:
    """Whether the text ends within the name of a group: 'Ann changed the group name from "Trip" to "Trip'."""
    left = _QUOTED.sub("", text)
    return _GROUP.search(left) is not None and _QUOTES.search(left) is not None
